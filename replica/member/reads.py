"""What a member answers: the catalog of all its groups, and records with the view that vouches for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from prometheus_client import CollectorRegistry

from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_journal import Journal
from replica.feed.refusals import Refusals
from replica.member.answers import catalog_mark, catalog_of
from replica.member.cluster_life import ClusterLife
from replica.member.copy import Around, SourceCopy
from replica.member.edge_feed_port import FeedPort
from replica.member.hosted import HostedPort
from replica.member.moves import move_of_record
from replica.member.scrubs import Scrubs
from replica.member.settings import Address, MemberSettings, SourceSettings
from replica.model.catalog import Catalog, Owner
from replica.model.edge_trust import LiveTrust
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.values import decode_record
from replica.model.identifier import END, ROUTE, PrefixTree, parent, prefix_key, prefix_text
from replica.model.identity import Trusts
from replica.model.prefix_moves import PrefixMove, where_moved
from replica.model.trust import Role
from replica.model.view import SourceView
from replica.takeover.edge_runner import boottime_ns
from replica.takeover.families import Families
from replica.takeover.ports import PublishedSites
from replica.takeover.service import TakeoverService

CATALOG_SETTLE_S = 0.002
HS_SITE_TYPES = frozenset({"HS_SITE", "HS_SITE.6"})


class MemberReads:
    """Fields of a member (see Member for the arguments) and what others read of it. MemberFeeds and Member rest on it."""

    def __init__(
        self,
        settings: MemberSettings,
        on_failed: Callable[[BaseException], None],
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.settings, self._on_failed, self._registry = settings, on_failed, registry
        self.copies: dict[str, SourceCopy] = {}
        self.broken: dict[str, ZaibeiError] = {}  # sources out of service, and why
        self.warnings: dict[str, str] = {}  # what a source's start found that a person must know; stays until the next start
        self._watching = contextlib.ExitStack()
        self.refusals = Refusals()  # of callers of the feed
        self.on_twins: Callable[[str], None] = lambda told: None  # a second sender of a source was refused; names both
        self.scrubs: Scrubs | None = None  # from the start on
        self.takeover = TakeoverService()
        self.feed_addresses: tuple[Address, ...] = ()
        self.beat_addresses: tuple[Address, ...] = ()
        self.catalog_changed: Callable[[], None] = lambda: None
        self._trusts: Trusts = settings.pins
        if settings.trust_files is not None:
            self._trusts = LiveTrust(lambda: self.settings.pins, settings.trust_files, frozenset({Role.SOURCE}))
        self._owners: PrefixTree[str] = PrefixTree()  # of the configuration, until a catalog says more
        for source in settings.sources:
            self._own(source)
        self._catalog_owners: PrefixTree[Owner] = PrefixTree()
        self._catalog = Catalog(own_site=settings.own_site)
        self._catalog_mark: object = None
        self._catalog_due = False
        self._journal: Journal | None = None
        self._apply: ApplyThread | None = None
        self._feed: FeedPort | None = None
        self._beats: list[asyncio.DatagramTransport] = []
        self._pullers: dict[str, asyncio.Task[None]] = {}
        self._around: Around | None = None
        self.changing = asyncio.Lock()  # one source at a time is taken out and brought in
        self._said: dict[str, str] = {}  # why a source is out of service, as logged last
        self._observer: asyncio.Task[None] | None = None
        self._returner: asyncio.Task[None] | None = None
        self._looker: asyncio.Task[None] | None = None
        self.addresses = Families(settings.own_site, boottime_ns())
        self._loop: asyncio.AbstractEventLoop | None = None
        self.life: ClusterLife | None = None  # None: this member works alone

    def catalog(self) -> Catalog:
        """The same object until ownership or an overlay changes."""
        return self._catalog

    def read(self, wants: Mapping[str, Sequence[bytes]]) -> dict[str, tuple[list[bytes | None], SourceView]]:
        """Records of several sources with their views; sources that are not held here, or cannot be read, are left out."""
        found = {}
        for name, keys in wants.items():
            copy = self.copies.get(name)
            if copy is not None:
                try:
                    found[name] = copy.answers.read(keys)
                except ZaibeiError as exc:
                    if not exc.trouble.retry:
                        self.broken.setdefault(name, exc)
        return found

    def read_one(self, name: str, keys: Sequence[bytes]) -> tuple[list[bytes | None], SourceView]:
        """Satisfies cluster_life.Sources."""
        found = self.read({name: keys}).get(name)
        if found is None:
            raise ZaibeiError(Code.NOT_FOUND, f"{name} is not in service at this member", retry=True)
        return found

    async def read_anywhere(self, wants: Mapping[str, Sequence[bytes]]) -> dict[str, tuple[list[bytes | None], SourceView]]:
        """As `read`; sources that do not live here are read at a member that holds them."""
        found = self.read(wants)
        if self.life is None or len(found) == len(wants):
            return found
        away = {name: keys for name, keys in wants.items() if name not in found and name not in self.copies}
        return found | await self.life.elsewhere.read(away) if away else found

    def hosted(self, name: str) -> HostedPort | None:
        """A source's group as registration sees it, where it is in service here; its state says whether it takes any."""
        copy = self.copies.get(name)
        return None if copy is None or name in self.broken else copy.hosted

    def _on_state(self, _: GroupState | None) -> None:
        """On the apply thread, after each entry: look at the catalog soon, once for many."""
        loop = self._loop
        if not self._catalog_due and loop is not None:
            self._catalog_due = True
            with contextlib.suppress(RuntimeError):  # the loop is closing
                loop.call_soon_threadsafe(self._renew_soon)

    def _renew_soon(self) -> None:
        if self._loop is not None:
            self._loop.call_later(CATALOG_SETTLE_S, self._renew_catalog)

    def _renew_catalog(self) -> None:
        self._catalog_due = False
        states = {source.name: self._owned_by(source) for source in self.settings.sources}
        recorded = self.recorded_moves()
        mark = (catalog_mark(states), recorded)
        if mark != self._catalog_mark:
            self._catalog_mark = mark
            moved = where_moved({name: state.moves for name, state in states.items()}, frozenset(self.copies), recorded)
            self._catalog = catalog_of(states.values(), self.settings.own_site, self._catalog.version + 1, moved)
            self._catalog_owners = self._catalog.owners
            self.catalog_changed()

    def _owned_by(self, source: SourceSettings) -> GroupState:
        """What is committed; of a source that never came into service what is configured.

        Its prefixes stay its own: "cannot say" sends a client to another site, "lives elsewhere" or a parent's "not found" ends
        its search.
        """
        copy = self.copies.get(source.name)
        state = GroupState(source.name) if copy is None else copy.store.state()
        if state.ownership_version:
            return state
        prefixes = tuple(prefix_key(prefix) for prefix in source.prefixes)
        sensitive = tuple(prefix_key(prefix) for prefix in source.case_sensitive)
        return replace(state, prefixes=prefixes, case_sensitive=sensitive, mode=source.mode)

    def recorded_moves(self) -> tuple[PrefixMove, ...]:
        """Prefixes that moved from one source to another, as the control group has recorded; () for a member that works alone."""
        return () if self.life is None else tuple(map(move_of_record, self.life.side.state.moved))

    def owner_of(self, prefix: bytes) -> str | None:
        """The source that answers for a prefix (key part) at this member, after all moves; None: nobody here knows one."""
        owned = self._catalog_owners.longest(prefix)
        return None if owned is None else owned[1].source

    def _own(self, source: SourceSettings) -> None:
        for prefix in source.prefixes:
            self._owners.put(prefix_key(prefix), source.name)

    def _owner_of(self, prefix: bytes) -> str | None:
        told, owned = self._catalog_owners.longest(prefix), self._owners.longest(prefix)
        if told is not None and (owned is None or len(owned[0]) <= len(told[0])):
            return told[1].source
        return None if owned is None else owned[1]  # enrolled a moment ago

    def _published(self, prefix: bytes) -> PublishedSites:
        """A prefix's sites as the copy of its parent's source holds them. Raises ZaibeiError."""
        owner = self._owner_of(parent(prefix))
        copy = self.copies.get(owner) if owner is not None else None
        if copy is None:
            return PublishedSites()
        (record,), _ = copy.store.get_many([ROUTE + prefix + END])
        if not record:
            return PublishedSites()
        try:
            values = decode_record(record).values
        except ProtocolFault as exc:
            raise ZaibeiError(Code.MALFORMED, f"the record of {prefix_text(prefix)} does not parse: {exc.detail}") from exc
        sites = [value for value in values if _type_of(value.type) in HS_SITE_TYPES]
        return PublishedSites(tuple(site.data for site in sites), min((site.ttl for site in sites), default=None))


def _type_of(kind: str | bytes) -> str:
    return kind if isinstance(kind, str) else kind.decode("ascii", "replace")
