"""Records with administrators, keys and groups: read at the desk where they live here, else as the copy answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

from hosting.answer.port import AnswerPort
from hosting.answer.standing import FOUND, NO_SUCH_NAME, row_of
from hosting.handle.delegation import Keeper
from hosting.handle.permits import folded, kept
from hosting.tenant.denials import Denials
from hosting.tenant.edge_clerk import Clerk
from hosting.tenant.offices import Office, Offices, OfficeSettings
from hosting.tenant.records import Named, named
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.names import full_name
from replica.model.handle.values import HandleValue, decode_record
from replica.model.identifier import prefix_text

Values = tuple[HandleValue, ...] | None
DECODED_KEPT, DECODED_OCTETS_MAX = 256, 4_096  # decoded records: those of keys and prefixes are asked for again and again
READ_KEPT_MAX = 8  # records that one request remembers: its key's, its prefix's, some groups'


@dataclass(frozen=True, slots=True)
class Seen:
    """A record at its desk: `record` as stored, None where there is none."""

    office: Office
    key: bytes
    spelling: bytes
    record: bytes | None

    @property
    def values(self) -> Values:
        """Raises ZaibeiError(DAMAGED)."""
        return values_of(self.record)


@dataclass(frozen=True, slots=True)
class Above:
    """The record of a prefix, and who keeps it. `unread`: why it was not read; then it names nobody."""

    values: Values
    keeper: Keeper
    unread: ZaibeiError | None = None


class Looks:
    """Reads for registration.

    Args:
        offices: sources that live here. port: all sources that are held here.
    """

    def __init__(self, offices: Offices, port: AnswerPort) -> None:
        self._offices, self._port = offices, port

    def office(self, prefix: bytes) -> Office:
        """Of the source that owns the prefix after all moves. Raises ZaibeiError: NOT_OWNER, UNREACHABLE."""
        found = self._offices.source_at(prefix)
        if not found:
            raise ZaibeiError(Code.NOT_OWNER, "no source that lives here has this prefix")
        return self._offices.office_of(found)

    def office_of(self, settings: OfficeSettings) -> Office:
        """Raises ZaibeiError(UNREACHABLE)."""
        return self._offices.office_of(settings.source)

    def sight(self) -> Sight:
        """Of a request that begins now."""
        return Sight(self, self._elsewhere)

    async def values(self, handle: bytes) -> Values:
        """As a request sees them that begins now. Raises as `Sight.values`."""
        return await self.sight().values(handle)

    @property
    def sources(self) -> tuple[OfficeSettings, ...]:
        """What lives at this member, by its configuration."""
        return self._offices.settings

    @property
    def denials(self) -> Denials:
        return self._offices.denials

    def source_at(self, handle: bytes) -> str:
        """The source that lives here and keeps a handle's record; empty: none does."""
        return self.keeper(handle) or ""

    def keeps(self, office: Office, handle: bytes) -> bool:
        """Is the record of a handle kept by this office's own tenant?"""
        return self.keeper(handle) == office.source

    def keeper(self, handle: bytes) -> str | None:
        """The source that lives here and keeps a handle's record; None: none does, or it was given away."""
        try:
            name = named(_text(handle))
            office = self.office(name.owner)
        except ZaibeiError:
            return None
        return office.source if office.keeps(name) else None

    def one_name(self, handle: bytes) -> bytes:
        """The one spelling of a handle, by the case rule of its owner; whose owner is not known keeps its case."""
        try:
            name = named(_text(handle))
            if name.identifier.route:
                return folded(handle)
            try:
                sensitive = self.office(name.owner).sensitive(name)
            except ZaibeiError as exc:
                if exc.code is not Code.NOT_OWNER:
                    raise
                owned = self._port.catalog().owners.longest(name.owner)
                sensitive = owned is None or owned[1].case_sensitive
        except ZaibeiError:
            return kept(handle)
        return kept(handle) if sensitive else folded(handle)

    async def _elsewhere(self, name: Named) -> Values:
        owned = self._port.catalog().owners.longest(name.owner)
        if owned is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{name.text[:80]!r} belongs to nobody whose records are held here", retry=True)
        owner, key = owned[1], name.key(case_sensitive=owned[1].case_sensitive)
        found = (await self._port.get_many({owner.source: [key]})).get(owner.source)
        if found is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{owner.source} cannot be read here", retry=True)
        [record], row = found[0], row_of(found[1])
        if (row.found if record is not None else row.missing) != (FOUND if record is not None else NO_SUCH_NAME):
            raise ZaibeiError(
                Code.UNREACHABLE, f"nobody here vouches for what {owner.source} says of {name.text[:80]!r}", retry=True
            )
        return values_of(record)


class Sight:
    """What one request sees: all of a source behind one barrier, which begins after the request came, so that whatever was
    acknowledged before it is seen. A record that is asked for again is as it was. One task at a time.
    """

    def __init__(self, looks: Looks, elsewhere: Callable[[Named], Awaitable[Values]]) -> None:
        self._looks, self._elsewhere = looks, elsewhere
        self._behind = set[Clerk]()  # whose barrier was passed
        self._read = dict[bytes, Values]()

    async def at_desk(self, name: Named) -> Seen:
        """A record as it is now. Raises ZaibeiError: NOT_OWNER, NOT_LEADER, UNREACHABLE."""
        office = self._looks.office(name.owner)
        key, spelling = office.key(name)
        [record], _ = await office.clerk.read([key], stale=office.clerk in self._behind)
        self._behind.add(office.clerk)
        return Seen(office, key, spelling, record)

    async def values(self, handle: bytes) -> Values:
        """Values of any handle; None: there is none, for certain.

        Raises:
            ZaibeiError: it cannot be known now, or is damaged. Then nobody is permitted anything by it.
        """
        if handle in self._read:
            return self._read[handle]
        name = named(_text(handle))
        try:
            found = (await self.at_desk(name)).values
        except ZaibeiError as exc:
            if exc.code is not Code.NOT_OWNER:
                raise
            found = await self._elsewhere(name)
        if len(self._read) < READ_KEPT_MAX:
            self._read[handle] = found
        return found

    async def above(self, office: Office, owner: bytes) -> Above:
        """The record of a prefix with handles of this office; that it cannot be read is told only to who needs it.

        Args:
            owner: the prefix's key part; empty: of all prefixes.
        """
        handle = full_name(prefix_text(owner).encode()) if owner else b"0.NA/0.NA"
        source = self._looks.keeper(handle)
        keeper = Keeper.NODE if source is None else Keeper.TENANT if source == office.source else Keeper.NEIGHBOUR
        try:
            return Above(await self.values(handle), keeper)
        except ZaibeiError as exc:
            return Above(None, keeper, exc)


def values_of(record: bytes | None) -> Values:
    """Raises ZaibeiError(DAMAGED): quarantined, or no record."""
    if record is None:
        return None
    try:
        return _decoded(record) if len(record) <= DECODED_OCTETS_MAX else decode_record(record).values
    except ProtocolFault as fault:
        raise ZaibeiError(Code.DAMAGED, f"the record cannot be read: {fault.detail}") from fault


@lru_cache(DECODED_KEPT)
def _decoded(record: bytes) -> tuple[HandleValue, ...]:
    return decode_record(record).values


def _text(handle: bytes) -> str:
    try:
        return handle.decode()
    except UnicodeDecodeError:
        raise ZaibeiError(Code.MALFORMED, "a handle's name is UTF-8") from None
