"""From what the guard noted to few events: something begins, and it is over. Pure; time is an argument.

    (kind, client): seen < threshold in a minute ─► nothing
                    threshold reached            ─► abnormal, once
                    not seen for a quiet while   ─► recovered, with the count of all that was seen

Bounded: so many things open at once (what comes beyond is told as one, of no client), so many events a minute (what comes beyond
is counted and told with the next one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hosting.guard.clients import network_text
from hosting.guard.events import Cause, Kind, SecurityEvent, State
from hosting.guard.guard import FLOOD, MISSING_NAME, OVER_LONG, OVER_NAME, OVER_QUOTA, OVER_STREAM, OVER_UDP
from hosting.guard.guesses import WRONG_PROOF

MINUTE_MS: Final = 60_000
QUIET_MS: Final = 60_000  # so long unseen is over
OPEN_MAX: Final = 256
BAD_CERTIFICATE: Final = "bad_certificate"
TWO_SENDERS: Final = "two_senders"
TALLIES_MAX: Final = 16_384  # below their threshold, in one minute
EVENTS_PER_MINUTE_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Rule:
    """When what is seen `threshold` times in a minute is an event. `tenant`: what is noted is a tenant's name, and no client."""

    kind: Kind
    threshold: int
    text: str
    tenant: bool = False


RULES: Final = {
    FLOOD: Rule(Kind.ATTACK, 1, "a flood over UDP: only proved addresses are answered"),
    OVER_UDP: Rule(Kind.ATTACK, 1, "more questions over UDP than one client may ask"),
    OVER_LONG: Rule(Kind.ATTACK, 1, "more long answers over UDP than one address may be sent"),
    OVER_STREAM: Rule(Kind.ATTACK, 1, "more questions over TCP, HTTP and gRPC than one client may ask"),
    OVER_NAME: Rule(Kind.ATTACK, 1, "more questions for one identifier than are answered"),
    OVER_QUOTA: Rule(Kind.QUOTA, 1, "more questions for a tenant than its quota of resolutions a second", tenant=True),
    WRONG_PROOF: Rule(Kind.BRUTE_FORCE, 10, "proofs of identity that are wrong"),
    BAD_CERTIFICATE: Rule(Kind.CERTIFICATE, 1, "a caller of the feed whose certificate does not count: zaibei status says why"),
    TWO_SENDERS: Rule(Kind.CERTIFICATE, 1, "two living processes publish as one source: zaibei status names both"),
    MISSING_NAME: Rule(Kind.SCAN, 10_000, "names that are not there"),
}


@dataclass(slots=True)
class _Open:
    ident: str
    count: int
    seen_ms: int


class Watch:
    """See the module.

    Args:
        member: this process, for people. next_ident: a new event's id.
        rules: by what was noted; what has no rule is no event.
    """

    def __init__(self, member: str, next_ident: Callable[[], str], rules: dict[str, Rule] | None = None) -> None:
        self._member, self._next_ident = member, next_ident
        self._rules = RULES if rules is None else rules
        self._minute = -1
        self._told = 0
        self._suppressed = 0
        self._tallies: dict[tuple[str, bytes], int] = {}
        self._open: dict[tuple[str, bytes], _Open] = {}

    def noted(self, what: str, client: bytes, count: int, now_ms: int) -> list[SecurityEvent]:
        """Something was seen `count` times."""
        rule = self._rules.get(what)
        if rule is None or count <= 0:
            return []
        self._turn(now_ms)
        key = (what, client)
        opened = self._open.get(key)
        if opened is None and (client and len(self._open) >= OPEN_MAX):
            key = (what, b"")
            opened = self._open.get(key)
        if opened is not None:
            opened.count += count
            opened.seen_ms = now_ms
            return []
        seen = self._tallies.get(key, 0) + count
        if seen < rule.threshold:
            if len(self._tallies) >= TALLIES_MAX and key not in self._tallies:
                self._tallies.clear()
            self._tallies[key] = seen
            return []
        self._tallies.pop(key, None)
        made = self._open[key] = _Open(self._next_ident(), seen, now_ms)
        return self._tell(self._event(key, made, State.ABNORMAL, now_ms, made.ident, ""))

    def passed(self, now_ms: int) -> list[SecurityEvent]:
        """Time went on: what was not seen for a while is over."""
        self._turn(now_ms)
        over = [key for key, one in self._open.items() if not 0 <= now_ms - one.seen_ms < QUIET_MS]
        events: list[SecurityEvent] = []
        for key in over:
            one = self._open.pop(key)
            events += self._tell(self._event(key, one, State.RECOVERED, now_ms, self._next_ident(), one.ident))
        return events

    def _turn(self, now_ms: int) -> None:
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute, self._told = minute, 0
            self._tallies.clear()

    def _event(self, key: tuple[str, bytes], one: _Open, state: State, now_ms: int, ident: str, related: str) -> SecurityEvent:
        what, client = key
        rule = self._rules[what]
        place = network_text(client) if client and not rule.tenant else ""
        text = f"{rule.text}: {client.decode()}" if client and rule.tenant else rule.text
        text = text if state is State.ABNORMAL else f"over: {text}"
        cause = Cause.OTHER if rule.tenant else Cause.ATTACK
        return SecurityEvent(
            ident, rule.kind, state, now_ms, self._member, place, text, one.count, related, cause, self._suppressed
        )

    def _tell(self, event: SecurityEvent) -> list[SecurityEvent]:
        if self._told >= EVENTS_PER_MINUTE_MAX:
            self._suppressed += 1
            return []
        self._told += 1
        self._suppressed = 0
        return [event]
