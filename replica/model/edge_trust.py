"""Trust out of files that may change while the process runs: a renewed root or revocation list counts within seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Pins
from replica.model.trust import Authority, Role, Trust

LOOK_S = 1.0  # how often the files are looked at
KNOWN_S_MAX = 60.0  # a chain that was proved is proved anew after that, or when anything it rests on changed or ended
KNOWN_MAX = 256  # chains
FILE_OCTETS_MAX = 16 * 1024 * 1024  # a list of a large CA

log = logging.getLogger("zaibei.identity")


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """Where a CA's public files lie. `cluster`: members of another one are refused; empty: of any."""

    roots: tuple[Path, ...]
    lists: tuple[Path, ...] = ()
    cluster: bytes = b""

    def mark(self) -> tuple[tuple[int, ...], ...]:
        """Differs once a file was changed. Raises OSError."""
        about = [path.stat() for path in (*self.roots, *self.lists)]
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in about)

    def read(self) -> Authority:
        """Raises ZaibeiError(INVALID_CONFIG): a file is missing or wrong; says which."""
        try:
            return Authority.parse([_read(path) for path in self.roots], [_read(path) for path in self.lists])
        except OSError as exc:
            raise ZaibeiError(Code.INVALID_CONFIG, f"a file of [pki] cannot be read: {exc}") from exc
        except ZaibeiError as exc:
            where = ", ".join(str(path) for path in (*self.roots, *self.lists))
            raise ZaibeiError(Code.INVALID_CONFIG, f"[pki] ({where}): {exc.trouble.message}") from exc


@dataclass(frozen=True, slots=True)
class _Proved:
    """What a chain was found to be, for as long as that holds. Times: Unix seconds."""

    peer: Peer
    trust: Trust
    from_s: float
    until_s: float


def _read(path: Path) -> bytes:
    if path.stat().st_size > FILE_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"{path} is over {FILE_OCTETS_MAX} octets")
    return path.read_bytes()


def _mark_of(files: TrustFiles) -> tuple[tuple[int, ...], ...]:
    try:
        return files.mark()
    except OSError as exc:
        raise ZaibeiError(Code.INVALID_CONFIG, f"a file of [pki] cannot be read: {exc}") from exc


class LiveTrust:
    """Satisfies replica.model.identity.Trusts. Any thread.

    Args:
        pins: the peers named in the configuration, by now.
        roles: what may come in by the CA.
    Raises:
        ZaibeiError(INVALID_CONFIG): the files cannot be read at the start. Later, what was read last counts on.
    """

    def __init__(self, pins: Callable[[], Pins], files: TrustFiles, roles: frozenset[Role]) -> None:
        self._pins, self._files, self._roles = pins, files, roles
        self._lock = threading.Lock()
        self._mark = _mark_of(files)  # before reading: what changes meanwhile is read once more
        self._authority = files.read()
        self._looked_s = time.monotonic()
        self._said = ""
        self._known: dict[tuple[bytes, ...], _Proved] = {}
        self._warn_of_age()

    def current(self) -> Trust:
        """What counts now."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._looked_s >= LOOK_S:
                self._looked_s = now_s
                self._look()
            return Trust(self._pins(), self._authority, self._roles, self._files.cluster)

    def roots_pem(self) -> bytes:
        return self.current().roots_pem()

    def identify(self, chain_pem: Sequence[bytes], now_s: float) -> Peer:
        """As Trust.identify. Proving a chain takes milliseconds, standing calls are proved each second: what was proved is kept
        while pins, authority and dates are the same."""
        trust, chain = self.current(), tuple(chain_pem)
        known = self._known.get(chain)
        if known is not None and known.trust == trust and known.from_s <= now_s < known.until_s:
            return known.peer
        self._known.pop(chain, None)
        peer = trust.identify(chain, now_s)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[chain] = _Proved(peer, trust, now_s, min(now_s + KNOWN_S_MAX, trust.next_end_s(chain, now_s)))
        return peer

    def _look(self) -> None:
        try:
            mark = self._files.mark()
            if mark == self._mark:
                return
            self._authority = self._files.read()
            self._mark, self._said = mark, ""
            log.info("the CA's files were read again", extra={"fields": {"lists": len(self._authority.lists)}})
            self._warn_of_age()
        except (OSError, ZaibeiError) as exc:
            if str(exc) != self._said:
                self._said = str(exc)
                log.error("the CA's changed files are not used, the earlier ones count", extra={"fields": {"why": str(exc)}})

    def _warn_of_age(self) -> None:
        for issuer in self._authority.outdated(time.time()):
            log.warning("a revocation list should have been replaced by now; it counts on", extra={"fields": {"issuer": issuer}})
