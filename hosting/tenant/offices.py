"""Hosted sources by prefix: whose identifier it is, who may register it, and which clerk does so on this member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hosting.tenant.edge_clerk import Clerk
from hosting.tenant.limits import LEADERS_MAX, DeskLimits
from hosting.tenant.port import HostedGroup
from hosting.tenant.records import Named
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import PrefixTree, prefix_part, prefix_text
from replica.model.identity import Peer, Pins
from replica.model.ladder_rules import registrations_refused

PARTS_KEPT_MAX = 10_000


@dataclass(frozen=True, slots=True)
class OfficeSettings:
    """One hosted source.

    Args:
        prefixes: key parts.
        registrars: who may register in it.
    """

    source: str
    prefixes: tuple[bytes, ...]
    registrars: Pins


class Office:
    """A hosted source on this member, while its group is in service here."""

    def __init__(self, settings: OfficeSettings, clerk: Clerk) -> None:
        self.settings, self.clerk = settings, clerk
        self._version = -1
        self._sensitive: PrefixTree[bool] = PrefixTree()
        self._allowed: dict[bytes, bool] = {}

    @property
    def source(self) -> str:
        return self.settings.source

    def leaders(self) -> list[str]:
        return [*self.clerk.group.leaders()][:LEADERS_MAX]

    def key(self, name: Named) -> tuple[bytes, bytes]:
        """Key and, where it cannot tell the name, the name as written.

        Raises:
            ZaibeiError(NOT_OWNER): another source's, by what the group has committed.
        """
        self._catch_up()
        sensitive = self._sensitive.longest(name.identifier.prefix) is not None
        key = name.key(case_sensitive=sensitive)
        part = prefix_part(key)
        allowed = self._allowed.get(part)
        if allowed is None:
            if len(self._allowed) >= PARTS_KEPT_MAX:
                self._allowed.clear()
            allowed = self._allowed[part] = self.clerk.group.allows(part)
        if not allowed:
            raise ZaibeiError(Code.NOT_OWNER, f"{name.text[:80]!r} belongs to another source than {self.source}")
        return key, name.spelling(key)

    def _catch_up(self) -> None:
        state = self.clerk.group.state()
        if state.ownership_version != self._version:
            self._version = state.ownership_version
            self._sensitive = PrefixTree(dict.fromkeys(state.case_sensitive, True))
            self._allowed.clear()


class Offices:
    """All hosted sources of this member's configuration.

    Args:
        find: a source's group where it is in service here; None: it is not.
        now_ms: Unix milliseconds.
    """

    def __init__(
        self,
        settings: Sequence[OfficeSettings],
        find: Callable[[str], HostedGroup | None],
        now_ms: Callable[[], int],
        limits: DeskLimits | None = None,
    ) -> None:
        self.settings = tuple(settings)
        self._find, self._now_ms, self._limits = find, now_ms, limits
        self._owners: PrefixTree[OfficeSettings] = PrefixTree()
        for one in settings:
            for prefix in one.prefixes:
                self._owners.put(prefix, one)
        self._open: dict[str, Office] = {}

    def pins(self) -> Pins:
        """Every registrar, each once: whom TLS lets in at all."""
        peers = {peer.fingerprint: peer for one in self.settings for peer in one.registrars.peers}
        return Pins(tuple(peers.values()))

    def office(self, prefix: bytes, who: Peer) -> Office:
        """The office that decides about a prefix.

        Raises:
            ZaibeiError: NOT_OWNER (no hosted source's), NOT_AUTHORISED (not this registrar's), UNREACHABLE (not in service here).
        """
        owned = self._owners.longest(prefix)
        if owned is None:
            raise ZaibeiError(Code.NOT_OWNER, f"no source hosted here has the prefix {prefix_text(prefix)[:80]}")
        settings = owned[1]
        if all(peer.fingerprint != who.fingerprint for peer in settings.registrars.peers):
            raise ZaibeiError(
                Code.NOT_AUTHORISED, f"{who.name} is no registrar of {settings.source}: add it to `registrars` of that source"
            )
        group = self._find(settings.source)
        if group is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{settings.source} is not in service on this member: ask another", retry=True)
        office = self._open.get(settings.source)
        if office is None or office.clerk.group is not group:  # opened anew meanwhile
            if office is not None:
                office.clerk.close()
            office = self._open[settings.source] = Office(settings, Clerk(group, self._now_ms, self._limits))
        return office

    def serving(self) -> bool:
        """Can registrations be made on this member?"""
        groups = map(self._find, (one.source for one in self.settings))
        return any(group is not None and group.leader and registrations_refused(group.state()) is None for group in groups)

    def close(self) -> None:
        for office in self._open.values():
            office.clerk.close()
