"""Callers that were refused at the feed's port: counted by reason, in bounded memory, told without letting them fill the log.

A certificate that was revoked, ended, or is of another role or name comes this far; one that no CA of ours signed fails in the
TLS handshake already and is not seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replica.model.errors import ZaibeiError
from replica.model.identity import Peer, Trusts

REASONS_MAX = 256  # told apart; what comes beyond is counted together
REASON_CHARS_MAX = 300
LOG_EVERY_MS = 60_000  # of one reason
RECENT_MS = 3_600_000
REST = "other reasons"


@dataclass(slots=True)
class Refused:
    """Of one reason. Times are Unix milliseconds."""

    count: int = 0
    last_ms: int = 0
    logged_ms: int | None = None


class Refusals:
    """See the module. `told`: called with the reason of each; on the event loop, and cheap."""

    def __init__(self) -> None:
        self.told: Callable[[str], None] = lambda reason: None
        self._by_reason: dict[str, Refused] = {}
        self.total = 0

    def note(self, reason: str, now_ms: int) -> bool:
        """One more. True: it is time for a line in the log."""
        reason = reason[:REASON_CHARS_MAX]
        if reason not in self._by_reason and len(self._by_reason) >= REASONS_MAX:
            self._forget(now_ms)
        if reason not in self._by_reason and len(self._by_reason) >= REASONS_MAX:
            reason = REST
        one = self._by_reason.setdefault(reason, Refused())
        self.total += 1
        self.told(reason)
        one.count += 1
        one.last_ms = now_ms
        if one.logged_ms is not None and now_ms - one.logged_ms < LOG_EVERY_MS:
            return False
        one.logged_ms = now_ms
        return True

    def _forget(self, now_ms: int) -> None:
        old = [reason for reason, one in self._by_reason.items() if now_ms - one.last_ms > RECENT_MS]
        for reason in old:
            del self._by_reason[reason]

    def recent(self, now_ms: int) -> list[tuple[str, Refused]]:
        """Reasons of the last hour, the newest first."""
        found = [(reason, one) for reason, one in self._by_reason.items() if now_ms - one.last_ms <= RECENT_MS]
        return sorted(found, key=lambda item: -item[1].last_ms)


class WatchedTrusts:
    """Trusts of a port, whose refusals are told. Satisfies Trusts."""

    def __init__(self, trusts: Callable[[], Trusts], refused: Callable[[str], None]) -> None:
        self._trusts, self._refused = trusts, refused

    def identify(self, chain: Sequence[bytes], now_s: float) -> Peer:
        """Raises as the trusts behind it."""
        try:
            return self._trusts().identify(chain, now_s)
        except ZaibeiError as exc:
            self._refused(exc.trouble.message)
            raise

    def roots_pem(self) -> bytes:
        return self._trusts().roots_pem()
