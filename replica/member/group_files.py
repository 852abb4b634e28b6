"""How a group's content travels between members: a store's as files, the control group's as one small value."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import NoReturn

from replica.cluster.machine import ControlMachine
from replica.consensus.hosted import Offer
from replica.member.edge_asks import ask
from replica.member.edge_peers import Peers
from replica.model.errors import Code, ZaibeiError
from replica.model.transfer import TransferKind
from replica.store.edge_loader import Staged
from replica.store.edge_store import SourceStore
from replica.transfer.edge_fetch import fetch
from replica.transfer.edge_grpc import GrpcSender
from replica.transfer.edge_serve import TransferService
from replica.transfer.ports import Held, Wanted
from replica.v1 import peer_pb2

TRANSFER_OCTETS = 16
CONTROL_S_MAX = 10.0
OFFERS_MAX = 8


class StoreFiles:
    """A source's store. Satisfies consensus.hosted.MemberFiles.

    Args:
        ident: the group's id; cluster: 16 octets; member: our number.
        service: holds our files still for others.
        store: the one in service now.
    """

    def __init__(
        self,
        ident: int,
        source: str,
        cluster: bytes,
        member: int,
        service: TransferService,
        peers: Peers,
        store: Callable[[], SourceStore],
    ) -> None:
        self._ident, self._source, self._cluster, self._member = ident, source, cluster, member
        self._service, self._peers, self._store = service, peers, store

    async def offer(self) -> Offer:
        """See MemberFiles."""
        least = self._store().applied()[0]
        wanted = Wanted(self._ident, self._source, TransferKind.CHECKPOINT, index_min=least)
        transfer, manifest = await self._service.hold(wanted)
        return Offer(manifest.index, manifest.term, transfer)

    async def fetch(self, member: int, offer: Offer) -> None:
        """See MemberFiles."""
        wanted = Wanted(self._ident, self._source, TransferKind.CHECKPOINT, index_min=offer.index, transfer=offer.transfer)
        store = self._store()
        async with self._peers.channel(member) as channel:
            sender = GrpcSender(channel, self._cluster, self._member, f"member {member}")
            fetched = await fetch(sender, wanted, store.fetching, store.room)
        if (fetched.manifest.index, fetched.manifest.term) != (offer.index, offer.term):
            text = f"member {member} sent entry {fetched.manifest.index}, offered was {offer.index}"
            raise ZaibeiError(Code.VERIFICATION_FAILED, text, retry=True)

    def install(self, offer: Offer) -> tuple[int, int]:
        """See MemberFiles."""
        del offer
        return self._store().install()

    async def fetch_side(self, member: int, number: int, begun: int) -> Staged:
        """Bring a generation that another member loaded beside; ready to be stated as staged. Raises ZaibeiError."""
        wanted = Wanted(self._ident, self._source, TransferKind.GENERATION, number=number, begun=begun)
        store = self._store()
        async with self._peers.channel(member) as channel:
            sender = GrpcSender(channel, self._cluster, self._member, f"member {member}")
            await fetch(sender, wanted, store.fetching_side(number, begun), store.room)
        return await asyncio.to_thread(store.adopt_side, number, begun)


class StoresHolder:
    """Satisfies replica.transfer.ports.Holder over the stores that are open here."""

    def __init__(self, store_of: Callable[[str], SourceStore | None]) -> None:
        self._store_of = store_of

    def hold(self, wanted: Wanted) -> Held:
        """See Holder."""
        store = self._store_of(wanted.source)
        if store is None:
            _absent(wanted.source)
        if wanted.kind is TransferKind.CHECKPOINT:
            return store.checkpoint()
        return store.hold_side(wanted.number, wanted.begun)


def _absent(source: str) -> NoReturn:
    raise ZaibeiError(Code.NOT_FOUND, f"{source} is not in service at this member", retry=True)


class ControlFiles:
    """The control group's value. Satisfies consensus.hosted.MemberFiles."""

    def __init__(self, machine: ControlMachine, peers: Peers, ident: int) -> None:
        self._machine, self._peers, self._ident = machine, peers, ident
        self._offered: dict[bytes, bytes] = {}
        self._fetched: dict[bytes, bytes] = {}

    async def offer(self) -> Offer:
        """See MemberFiles."""
        index, term, octets = self._machine.checkpoint()
        transfer = secrets.token_bytes(TRANSFER_OCTETS)
        while len(self._offered) >= OFFERS_MAX:
            del self._offered[next(iter(self._offered))]
        self._offered[transfer] = octets
        return Offer(index, term, transfer)

    def offered(self, transfer: bytes) -> bytes:
        """What was offered under that name. Raises ZaibeiError(NOT_FOUND)."""
        octets = self._offered.get(transfer)
        if octets is None:
            raise ZaibeiError(Code.NOT_FOUND, "that offer of the control group is over: it is made again", retry=True)
        return octets

    async def fetch(self, member: int, offer: Offer) -> None:
        """See MemberFiles."""
        question = peer_pb2.MemberQuestion(group=self._ident, control=offer.transfer)
        answer = await ask(self._peers, member, question, CONTROL_S_MAX)
        self._fetched = {offer.transfer: answer.octets}

    def install(self, offer: Offer) -> tuple[int, int]:
        """See MemberFiles."""
        octets = self._fetched.pop(offer.transfer, None)
        if octets is None:
            raise ZaibeiError(Code.NOT_FOUND, "nothing of the control group was fetched", retry=True)
        return self._machine.install(octets)
