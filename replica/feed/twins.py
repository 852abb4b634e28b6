"""Two living processes that publish under one identity: noticed when the first speaks again after the second did. Pure.

Each process that publishes has an instance id, random at its start, and states it with its offer. A restart, or a move to another
host, shows one id and then another; only where both live does the first one come back:

    first ─► second ─► first again, within APART_MS ─► two: the first is let in, others are refused and told so
                       one of both unseen for APART_MS ─► over

Which of them is right nobody here can know. That both are named, and one is kept, is what helps the people who decide; what they
say is judged by its chain as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

APART_MS = 60_000
SENDERS_MAX = 8  # of one source, remembered
INSTANCE_OCTETS_MAX = 64
MS = 1_000_000


@dataclass(slots=True)
class Sender:
    """One process. `first`, `serial`: of its first and its newest stream; `seen_ns`: of its newest word."""

    instance: bytes
    where: str
    first: int
    serial: int
    seen_ns: int

    def __str__(self) -> str:
        return f"{self.where or 'a place not known'} (process {self.instance.hex()[:8]})"


class Twins:
    """The senders of one source, as this member meets them."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._senders: dict[bytes, Sender] = {}
        self._serial = 0
        self._kept: bytes = b""

    @property
    def senders(self) -> int:
        """How many are remembered."""
        return len(self._senders)

    def opened(self, instance: bytes, where: str, now_ns: int) -> str:
        """A stream was opened.

        Args:
            instance: as the sender states it; empty: a version that states none, of which nothing is known.
            where: its address, for people.
        Returns:
            Why it is refused; empty: it is let in.
        """
        if not instance or len(instance) > INSTANCE_OCTETS_MAX:
            return ""
        self._forget(now_ns)
        self._serial += 1
        known = self._senders.get(instance)
        newest = max(self._senders.values(), key=lambda one: one.serial, default=None)
        back = known is not None and newest is not None and newest.instance != instance
        if known is None:
            known = self._senders[instance] = Sender(instance, where, self._serial, self._serial, now_ns)
        known.where, known.seen_ns, known.serial = where, now_ns, self._serial
        if back and not self._kept:
            self._kept = min(self._senders.values(), key=lambda one: one.first).instance
        if self._kept in (b"", instance):
            return ""
        return self.told(now_ns)

    def heard(self, instance: bytes, at_ns: int) -> None:
        """A sender's stream said something, then."""
        if (known := self._senders.get(instance)) is not None:
            known.seen_ns = max(known.seen_ns, at_ns)

    def told(self, now_ns: int) -> str:
        """A sentence that names both; empty: there are not two."""
        self._forget(now_ns)
        kept = self._senders.get(self._kept)
        others = sorted((one for one in self._senders.values() if one is not kept), key=lambda one: -one.serial)
        if kept is None or not others:
            return ""
        return (
            f"two living processes publish as {self._source}: {kept}, which came first and is let in, and "
            f"{', '.join(map(str, others))}, refused. Stop the one that is not the registry: it holds its key"
        )

    def _forget(self, now_ns: int) -> None:
        """Who is gone for long was stopped, or moved."""
        for one in [one for one in self._senders.values() if now_ns - one.seen_ns > APART_MS * MS]:
            del self._senders[one.instance]
        while len(self._senders) > SENDERS_MAX:
            least = min(self._senders.values(), key=lambda one: (one.instance == self._kept, one.seen_ns))
            del self._senders[least.instance]
        if self._kept not in self._senders or len(self._senders) < 2:
            self._kept = b""
