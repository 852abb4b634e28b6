"""Hosted sources by prefix: whose identifier it is, who may register it, and which clerk does so on this member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hosting.tenant.admitting import existing_only, in_place, over_count, over_octets, over_rate, put_need, put_rights
from hosting.tenant.denials import Denials
from hosting.tenant.edge_clerk import Clerk
from hosting.tenant.limits import CHANGE_FRAME_OCTETS, HELD_MAX, LEADERS_MAX, DeskLimits
from hosting.tenant.lots import Draft
from hosting.tenant.papers import KINDS_FROM, KINDS_TO, PAPERS_MAX, Papers, Quota, papers_of
from hosting.tenant.port import HostedGroup
from hosting.tenant.rates import Bucket
from hosting.tenant.records import Named
from hosting.tenant.rights import Caller, Operation, Refusal, granted, may
from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identifier import PrefixTree, prefix_part, prefix_text
from replica.model.identity import Peer, Pins
from replica.model.ladder_rules import registrations_refused
from replica.model.precondition import Precondition
from replica.model.prefix_moves import AWAY, move_at, newest

PARTS_KEPT_MAX = 10_000
PAPERS_MS_MAX = 1_000  # age of documents where this member does not lead: there nothing is changed, only read
READS_MAX = 5


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

    def __init__(self, settings: OfficeSettings, clerk: Clerk, now_ms: Callable[[], int]) -> None:
        self.settings, self.clerk, self._now_ms = settings, clerk, now_ms
        self._version = -1
        self._sensitive: PrefixTree[bool] = PrefixTree()
        self._allowed: dict[bytes, bool] = {}
        self._papers = Papers()
        self._papers_ms = -1  # when they were read
        self._bucket: Bucket | None = None
        self._bucket_of = Quota()
        self.held = 0  # answers held back at this moment

    @property
    def source(self) -> str:
        return self.settings.source

    def leaders(self) -> list[str]:
        return [*self.clerk.group.leaders()][:LEADERS_MAX]

    def sensitive(self, name: Named) -> bool:
        """Does its suffix keep its case? Then two spellings are two identifiers."""
        return self.keeps_case(name.identifier.prefix)

    def keeps_case(self, prefix: bytes) -> bool:
        """Do the suffixes of this prefix, a key part, keep their case?"""
        self._catch_up()
        return self._sensitive.longest(prefix) is not None

    def key(self, name: Named) -> tuple[bytes, bytes]:
        """Key and, where it cannot tell the name, the name as written.

        Raises:
            ZaibeiError(NOT_OWNER): another source's, by what the group has committed.
        """
        key = name.key(case_sensitive=self.sensitive(name))
        if not self._allows(prefix_part(key)):
            raise ZaibeiError(Code.NOT_OWNER, f"{name.text[:80]!r} belongs to another source than {self.source}")
        return key, name.spelling(key)

    def keeps(self, name: Named) -> bool:
        """Is its record this source's, by what the group has committed?"""
        self._catch_up()
        return self._allows(prefix_part(name.identifier.key(case_sensitive=True)))

    def holds(self, prefix: bytes) -> None:
        """Raises ZaibeiError(NOT_OWNER): a prefix, as key part, is another source's by what the group has committed."""
        self._catch_up()
        if not self._allows(prefix):
            raise ZaibeiError(Code.NOT_OWNER, f"{prefix_text(prefix)[:80]} belongs to another source than {self.source}")

    def _allows(self, part: bytes) -> bool:
        allowed = self._allowed.get(part)
        if allowed is None:
            if len(self._allowed) >= PARTS_KEPT_MAX:
                self._allowed.clear()
            allowed = self._allowed[part] = self.clerk.group.allows(part)
        return allowed

    # ------------------------------------------------------------------------------------------------- what the tenant may
    async def documents(self) -> Papers:
        """What the registry says about the tenant, as applied now; on another member than the leader at most PAPERS_MS_MAX old.

        Raises:
            ZaibeiError: BUSY (they change faster than they are read), or reading failed.
        """
        group, follow = self.clerk.group, self.clerk.follow
        for _ in range(READS_MAX):
            at = group.state().position
            if follow.holds(at) or (not group.leader and 0 <= self._now_ms() - self._papers_ms < PAPERS_MS_MAX):
                return self._papers
            rows = await group.scan(KINDS_FROM, KINDS_TO, PAPERS_MAX + 1)
            if len(rows) > PAPERS_MAX:
                raise ZaibeiError(Code.REFUSED, f"over {PAPERS_MAX} documents about {self.source}: take some out")
            if follow.same(at, group.state().position) or not group.leader:
                follow.read(at)
                self._papers, self._papers_ms = papers_of(rows), self._now_ms()
                return self._papers
        raise ZaibeiError(Code.BUSY, f"documents about {self.source} are being changed: again later", retry=True)

    def admitted(self, papers: Papers, caller: Caller, name: Named, change: Change, need: Precondition) -> Precondition:
        """What must hold for a change to be carried out. The rate is asked first, and taken from last: by who may alone.

        Raises:
            ZaibeiError: NOT_AUTHORISED, REFUSED, DAMAGED by rights; OVER_QUOTA.
        """
        self.has_room()
        now_ms = self._now_ms()
        if change.op == OP_DELETE:
            refusal = may(caller, Operation.DELETE, name, papers, now_ms=now_ms)
        else:
            found = put_need(put_rights(caller, name, papers, now_ms=now_ms), need)
            refusal, need = (found, need) if isinstance(found, Refusal) else (None, found)
        refusal = refusal or self._over_rate(papers.quota, now_ms)
        if refusal is None and change.op == OP_PUT:
            refusal, need = self._counted(papers, change, need)
        if refusal is not None:
            raise refusal.error
        self._settled(prefix_part(change.key))
        return need

    def _settled(self, part: bytes) -> None:
        """Raises ZaibeiError(FENCED): this prefix is on its way to another source; nothing is registered below it meanwhile."""
        moves = self.clerk.group.state().moves
        move = move_at(newest(moves), part) if moves else None
        if move is not None and move.step in AWAY:
            text = f"{prefix_text(move.prefix)} moves from {move.source} to {move.target}: register again soon"
            raise ZaibeiError(Code.FENCED, text, retry=True)

    def lot_admitted(self, papers: Papers, caller: Caller, prefix: bytes, lot: Sequence[Draft]) -> list[Precondition | Refusal]:
        """`admitted` of changes whose names are in one prefix: of as many as were decided, one after the other. None of them
        where a quota of identifiers or octets is so near that each must be looked at alone.

        Raises:
            ZaibeiError: OVER_QUOTA as `has_room`, of the first; FENCED: the prefix is on its way to another source.
        """
        self.has_room()
        self._settled(prefix)
        if not self._ample(papers.quota, papers.count, lot):
            return []
        now_ms, found = self._now_ms(), list[Precondition | Refusal]()
        puts = put_rights(caller, prefix, papers, now_ms=now_ms)
        deletes = may(caller, Operation.DELETE, prefix, papers, now_ms=now_ms)
        for change, need in lot:
            if found and self.full():
                return found  # whoever comes behind is refused with one look
            one = put_need(puts, need) if change.op == OP_PUT else deletes or need
            if isinstance(one, Precondition) and (refusal := self._over_rate(papers.quota, now_ms)) is not None:
                return [*found, refusal]
            found.append(one)
        return found

    def _ample(self, quota: Quota, papers: int, lot: Sequence[Draft]) -> bool:
        """Is there room for all of these, even if each were new?"""
        group, desk = self.clerk.group, self.clerk.desk
        counted = quota.identifiers is None or (
            over_count(quota.identifiers, group.state().records - papers, desk.pending + len(lot)) is None
        )
        if quota.octets is None or not counted:
            return counted
        more = sum(len(change.key) + len(change.value) + CHANGE_FRAME_OCTETS for change, _ in lot)
        return over_octets(quota.octets, group.octets(), desk.pending_octets, more) is None

    def may_one(self, papers: Papers, caller: Caller, operations: Sequence[Operation], name: Named) -> None:
        """Asked before it is told what is there. Raises ZaibeiError as `admitted`: none of these is the caller's to do."""
        found = [may(caller, operation, name, papers, now_ms=self._now_ms()) for operation in operations]
        if found and all(found) and found[0] is not None:
            raise found[0].error

    def readable(self, papers: Papers, caller: Caller, operation: Operation, prefix: bytes) -> None:
        """Raises ZaibeiError(NOT_AUTHORISED): not by this caller."""
        refusal = may(caller, operation, prefix, papers, now_ms=self._now_ms())
        if refusal is not None:
            raise refusal.error

    def has_room(self) -> None:
        """Is there a token? Takes none, so it may be asked for anybody, before anything dear is done for him.

        Raises:
            ZaibeiError(OVER_QUOTA): for certain: by documents that hold at this moment.
        """
        bucket = self._bucket
        if bucket is None:
            return
        refusal = over_rate(bucket.per_s, bucket.wait_ms(self._now_ms()))
        if refusal is not None and self._papers.quota == self._bucket_of and self._holds():
            raise refusal.error

    def full(self) -> bool:
        """Would `has_room` raise? For who only needs to know."""
        bucket = self._bucket
        if bucket is None or bucket.wait_ms(self._now_ms()) == 0:
            return False
        return self._papers.quota == self._bucket_of and self._holds()

    def _holds(self) -> bool:
        """Are the documents that were read last those of this moment?"""
        return self.clerk.follow.holds(self.clerk.group.state().position)

    def held_ms(self, trouble: Trouble, count: int = 1) -> int:
        """For how many milliseconds the answer to so many changes is held back: a client that waits for it slows itself."""
        if trouble.code is not Code.OVER_QUOTA or self._bucket is None or self.held >= HELD_MAX:
            return 0
        return self._bucket.refused(self._now_ms(), count)

    def tells_all(self, papers: Papers, caller: Caller, prefix: bytes) -> bool:
        """Is a reader told the values too that the public may not read? That a tenant is public grants nobody those."""
        return papers.tenant is None or granted(caller, Operation.READ, prefix, papers, now_ms=self._now_ms())

    def _over_rate(self, quota: Quota, now_ms: int) -> Refusal | None:
        if quota.registrations_per_s is None:
            return None
        if self._bucket is None or self._bucket_of != quota:
            self._bucket, self._bucket_of = Bucket(quota.registrations_per_s, quota.burst_s, now_ms), quota
        return over_rate(quota.registrations_per_s, self._bucket.take(now_ms))

    def _counted(self, papers: Papers, change: Change, need: Precondition) -> tuple[Refusal | None, Precondition]:
        """At the limit only what is there may be put, of octets nothing longer than it: so it is also what must hold at apply.

        Raises:
            ZaibeiError(BUSY): the store catches up after a disk error: less is counted than was acknowledged.
        """
        group, limit, room = self.clerk.group, papers.quota.identifiers, papers.quota.octets
        if limit is None and room is None:
            return None, need
        [value] = group.get_many([change.key])[0]
        if limit is not None:
            refusal = over_count(limit, group.state().records - papers.count, self.clerk.desk.pending)
            if refusal is not None:
                narrowed = existing_only(need)
                if narrowed is None or value is None:
                    return refusal, need
                need = narrowed
        if room is not None:
            return self._roomy(room, change, value, need)
        return None, need

    def _roomy(self, room: int, change: Change, held: bytes | None, need: Precondition) -> tuple[Refusal | None, Precondition]:
        """Do its octets fit? First as if it were new; and if not, in place of what is there, which then must be so at apply."""
        found, desk = self.clerk.group.octets(), self.clerk.desk
        refusal = over_octets(room, found, desk.pending_octets, len(change.key) + len(change.value))
        replaced = None if refusal is None else in_place(need, change, held, latched=desk.latched(change.key))
        if replaced is None:
            return refusal, need
        exact, more = replaced
        return (None if more <= 0 else over_octets(room, found, desk.pending_octets, more)), exact

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
        owner_of: the source that owns a prefix after all moves; None of it: by the configuration.
    """

    def __init__(
        self,
        settings: Sequence[OfficeSettings],
        find: Callable[[str], HostedGroup | None],
        now_ms: Callable[[], int],
        limits: DeskLimits | None = None,
        owner_of: Callable[[bytes], str | None] = lambda _: None,
    ) -> None:
        self.settings = tuple(settings)
        self._owner_of, self._by_name = owner_of, {one.source: one for one in self.settings}
        self._find, self._now_ms, self._limits = find, now_ms, limits
        self.denials = Denials()
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
        settings = self._settings_at(prefix)
        if settings is None:
            raise ZaibeiError(Code.NOT_OWNER, f"no source hosted here has the prefix {prefix_text(prefix)[:80]}")
        if all(peer.fingerprint != who.fingerprint for peer in settings.registrars.peers):
            raise ZaibeiError(
                Code.NOT_AUTHORISED, f"{who.name} is no registrar of {settings.source}: add it to `registrars` of that source"
            )
        return self._opened(settings)

    def denied(self, code: Code, source: str, who: str, count: int = 1) -> None:
        """So many registrations, or a list, were refused (denials.py)."""
        self.denials.refused(code, source, who, self._now_ms(), count)

    def source_at(self, prefix: bytes) -> str:
        """The hosted source of a prefix; empty: none's."""
        settings = self._settings_at(prefix)
        return "" if settings is None else settings.source

    def _settings_at(self, prefix: bytes) -> OfficeSettings | None:
        """Of the hosted source that owns a prefix: by the moves that were committed, and before any by the configuration."""
        moved = self._by_name.get(self._owner_of(prefix) or "")
        if moved is not None:
            return moved
        owned = self._owners.longest(prefix)
        return None if owned is None else owned[1]

    def tenant_of(self, who: Peer) -> str:
        """The first source whose registrar it is; itself where it is none's."""
        for one in self.settings:
            if any(peer.fingerprint == who.fingerprint for peer in one.registrars.peers):
                return one.source
        return who.fingerprint

    def office_of(self, source: str) -> Office:
        """A source's office by name, for the centre itself. Raises ZaibeiError: NOT_FOUND, UNREACHABLE."""
        for settings in self.settings:
            if settings.source == source:
                return self._opened(settings)
        known = ", ".join(sorted(one.source for one in self.settings)) or "none"
        raise ZaibeiError(Code.NOT_FOUND, f"{source!r} does not live at this member (these do: {known})")

    def _opened(self, settings: OfficeSettings) -> Office:
        group = self._find(settings.source)
        if group is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{settings.source} is not in service on this member: ask another", retry=True)
        office = self._open.get(settings.source)
        if office is None or office.clerk.group is not group:  # opened anew meanwhile
            if office is not None:
                office.clerk.close()
            office = self._open[settings.source] = Office(settings, Clerk(group, self._now_ms, self._limits), self._now_ms)
        return office

    def serving(self) -> bool:
        """Can registrations be made on this member?"""
        groups = map(self._find, (one.source for one in self.settings))
        return any(group is not None and group.leader and registrations_refused(group.state()) is None for group in groups)

    def close(self) -> None:
        for office in self._open.values():
            office.clerk.close()
