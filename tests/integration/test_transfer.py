"""Files between members over gRPC and mTLS: the contract on the twin and on the wire, refusals, and two real stores."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from replica.consensus.edge_link_tls import CLIENT_OPTIONS, SERVER_OPTIONS
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import fingerprint
from replica.model.transfer import Manifest, TransferKind
from replica.store import SourceStore
from replica.store.edge_checkpoint import Checkpoint
from replica.transfer.edge_fetch import FetchLimits, fetch
from replica.transfer.edge_grpc import GrpcSender
from replica.transfer.edge_metrics import TransferMetrics
from replica.transfer.edge_pace import Pace
from replica.transfer.edge_send import ServeLimits
from replica.transfer.edge_serve import TransferService
from replica.transfer.memory import MemorySender, describe
from replica.transfer.ports import Held, Sender, Wanted
from replica.v1 import transfer_pb2, transfer_pb2_grpc
from tests.unit.store.support import SOURCE, Group, Source, held, load, put, small_budget
from tests.unit.transfer.support import GROUP, QUICK, WANTED, ample, found_in, some_files

CLUSTER = b"C" * 16
LEADER, FOLLOWER, STRANGER = 1, 2, 3


@dataclass
class FolderHeld:
    """Files in a folder."""

    folder: Path
    manifest: Manifest
    released: int = 0
    gone: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self.released += 1
        self.gone.set()


@dataclass
class FolderHolder:
    """Holds one set of files, or what a store holds."""

    folder: Path
    manifest: Manifest | None = None
    store: SourceStore | None = None
    made: list[Held] = field(default_factory=list)

    def hold(self, wanted: Wanted) -> Held:
        held_now: Held
        if self.store is None:
            assert self.manifest is not None
            held_now = FolderHeld(self.folder, self.manifest)
        elif wanted.kind is TransferKind.CHECKPOINT:
            held_now = self.store.checkpoint()
        else:
            held_now = self.store.hold_side(wanted.number, wanted.begun)
        self.made.append(held_now)
        return held_now


@dataclass(frozen=True)
class Known:
    """Members by certificate."""

    members: dict[str, int]

    def member_of(self, chain_pem: Sequence[bytes]) -> tuple[int, str]:
        number = self.members.get(fingerprint(chain_pem[0]))
        if number is None:
            raise ZaibeiError(Code.NOT_AUTHORISED, "no member's certificate")
        return number, f"member-{number}"


class World:
    """A leader that serves, and channels of others to it."""

    def __init__(self, folder: Path, holder: FolderHolder, limits: ServeLimits | None = None, pace: Pace | None = None) -> None:
        self.identities = {n: ensure_identity(folder / f"identity-{n}", f"member-{n}") for n in (LEADER, FOLLOWER, STRANGER)}
        known = Known({self.identities[n].fingerprint: n for n in (LEADER, FOLLOWER)})
        self.registry = CollectorRegistry()
        self.holder = holder
        self.service = TransferService(
            holder, known, CLUSTER, self.source_of, limits=limits, pace=pace, metrics=TransferMetrics(self.registry)
        )
        self.port = 0

    @staticmethod
    def source_of(group: int) -> str:
        if group != GROUP:
            raise ZaibeiError(Code.NOT_FOUND, f"group {group} is not here")
        return SOURCE

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[World]:
        server = grpc.aio.server(options=list(SERVER_OPTIONS))
        transfer_pb2_grpc.add_TransferServicer_to_server(self.service, server)  # type: ignore[no-untyped-call]
        own = self.identities[LEADER]
        roots = b"".join(one.certificate_pem for one in self.identities.values())  # the stranger passes TLS, not the trust
        credentials = grpc.ssl_server_credentials([(own.tls_key_pem, own.certificate_pem)], roots, require_client_auth=True)
        self.port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)
            await self.service.close()

    @asynccontextmanager
    async def channel(self, number: int = FOLLOWER) -> AsyncIterator[grpc.aio.Channel]:
        own, leader = self.identities[number], self.identities[LEADER]
        credentials = grpc.ssl_channel_credentials(leader.certificate_pem, own.tls_key_pem, own.certificate_pem)
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=list(CLIENT_OPTIONS)) as channel:
            yield channel

    @asynccontextmanager
    async def sender(self, number: int = FOLLOWER, cluster: bytes = CLUSTER, stated: int = 0) -> AsyncIterator[GrpcSender]:
        async with self.channel(number) as channel:
            yield GrpcSender(channel, cluster, stated or number, "member-1")

    def refused(self, code: Code) -> float:
        return self.registry.get_sample_value("zaibei_transfer_refused_total", {"side": "serve", "code": code.value}) or 0.0


def folder_of(files: dict[str, bytes], folder: Path) -> FolderHolder:
    folder.mkdir()
    for name, octets in files.items():
        (folder / name).write_bytes(octets)
    return FolderHolder(folder, describe(files, SOURCE, index=5))


# ------------------------------------------------------------------------------------------------------ contract of senders
@pytest.fixture(params=["twin", "wire"])
async def sender(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sender]:
    files = some_files()
    if request.param == "twin":
        yield MemorySender(files, describe(files, SOURCE, index=5))
        return
    world = World(tmp_path, folder_of(files, tmp_path / "files"), ServeLimits(chunk_octets=7))
    async with world.serving(), world.sender() as real:
        yield real


async def test_a_sender_sends_what_is_asked_in_order_and_within_credit(sender: Sender) -> None:
    files = some_files()
    offer = await sender.offer(WANTED)
    assert offer.manifest == describe(files, SOURCE, index=5)
    async with sender.reading(offer.transfer) as reading:
        await reading.ask("000001.sst", 0)
        await reading.ask("CURRENT", 5)
        await reading.credit(100 if isinstance(sender, MemorySender) else 60)
        came: dict[str, bytes] = {}
        while came.get("CURRENT") != files["CURRENT"][5:]:
            chunk = await reading.next()
            start = 5 if chunk.file == "CURRENT" else 0
            assert chunk.offset == start + len(came.get(chunk.file, b""))
            came[chunk.file] = came.get(chunk.file, b"") + chunk.octets
        assert list(came) == ["000001.sst", "CURRENT"] and came["000001.sst"] == files["000001.sst"]
    await sender.release(offer.transfer)
    await sender.release(b"?" * 16)  # never raises


async def test_a_sender_refuses_what_it_does_not_hold(sender: Sender) -> None:
    with pytest.raises(ZaibeiError) as unknown:
        await sender.offer(replace(WANTED, transfer=b"?" * 16))
    assert unknown.value.code is Code.NOT_FOUND
    with pytest.raises(ZaibeiError) as lost:
        async with sender.reading(b"?" * 16) as reading:
            await reading.ask("CURRENT", 0)
            await reading.credit(1)
            await reading.next()
    assert lost.value.code is Code.NOT_FOUND
    offer = await sender.offer(WANTED)
    with pytest.raises(ZaibeiError) as refused:
        async with sender.reading(offer.transfer) as reading:
            await reading.ask("../files/CURRENT", 0)
            await reading.credit(1)
            await reading.next()
    assert refused.value.code is Code.MALFORMED


async def test_both_are_fetched_from_alike(sender: Sender, tmp_path: Path) -> None:
    done = await fetch(sender, WANTED, tmp_path / "in", ample, limits=QUICK)
    assert found_in(tmp_path / "in") == some_files() and done.fetched_octets == done.manifest.octets


# ------------------------------------------------------------------------------------------------------ who, what, how much
async def test_strangers_and_mistaken_members_are_refused_and_counted(tmp_path: Path) -> None:
    world = World(tmp_path, folder_of(some_files(), tmp_path / "files"))
    async with world.serving():
        for named, code in (
            ({"number": STRANGER}, Code.NOT_AUTHORISED),
            ({"cluster": b"X" * 16}, Code.NOT_AUTHORISED),
            ({"stated": LEADER}, Code.NOT_AUTHORISED),
        ):
            before = world.refused(code)
            async with world.sender(**named) as mistaken:  # type: ignore[arg-type]
                with pytest.raises(ZaibeiError) as refused:
                    await mistaken.offer(WANTED)
            assert refused.value.code is code and world.refused(code) == before + 1
        async with world.sender() as sender:
            with pytest.raises(ZaibeiError) as elsewhere:
                await sender.offer(replace(WANTED, group=GROUP + 1))
            assert elsewhere.value.code is Code.NOT_FOUND
            with pytest.raises(ZaibeiError) as early:
                await sender.offer(replace(WANTED, index_min=6))
            assert early.value.code is Code.BUSY and early.value.trouble.retry
            own = await sender.offer(WANTED)
        async with world.channel(STRANGER) as channel:
            stranger = GrpcSender(channel, CLUSTER, FOLLOWER, "member-1")
            with pytest.raises(ZaibeiError) as robbed:
                async with stranger.reading(own.transfer) as reading:
                    await reading.ask("CURRENT", 0)
                    await reading.credit(1)
                    await reading.next()
            assert robbed.value.code is Code.NOT_AUTHORISED
    assert [made.released for made in world.holder.made if isinstance(made, FolderHeld)] == [1, 1]


@pytest.mark.parametrize(
    "request_",
    [
        transfer_pb2.ManifestRequest(),
        transfer_pb2.ManifestRequest(format=1, cluster=CLUSTER, member=FOLLOWER, group=GROUP),
        transfer_pb2.ManifestRequest(format=9, cluster=CLUSTER, member=FOLLOWER, group=GROUP),
    ],
)
async def test_requests_that_are_none(tmp_path: Path, request_: transfer_pb2.ManifestRequest) -> None:
    world = World(tmp_path, folder_of(some_files(), tmp_path / "files"))
    async with world.serving(), world.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await transfer_pb2_grpc.TransferStub(channel).Manifest(request_)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert world.holder.made == [] and world.refused(Code.MALFORMED) == 1


async def test_too_much_credit_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, folder_of(some_files(), tmp_path / "files"), ServeLimits(credits_max=8))
    async with world.serving(), world.sender() as sender:
        offer = await sender.offer(WANTED)
        with pytest.raises(ZaibeiError) as refused:
            async with sender.reading(offer.transfer) as reading:
                await reading.credit(9)
                await reading.next()
        assert refused.value.code is Code.MALFORMED


async def test_no_more_than_its_streams_and_all_shared(tmp_path: Path) -> None:
    """Two at once share what is held; a third stream is told to come later; all is let go at the end."""
    world = World(tmp_path, folder_of(some_files(), tmp_path / "files"), ServeLimits(streams_max=1, lease_s=0.2))
    async with world.serving(), world.sender() as one, world.sender(LEADER) as two:
        first, second = await asyncio.gather(one.offer(WANTED), two.offer(WANTED))
        assert first.transfer == second.transfer and len(world.holder.made) == 1
        async with one.reading(first.transfer) as reading:
            await reading.ask("CURRENT", 0)
            await reading.credit(1)
            assert (await reading.next()).octets == some_files()["CURRENT"]
            with pytest.raises(ZaibeiError) as busy:
                async with two.reading(second.transfer) as other:
                    await other.ask("CURRENT", 0)
                    await other.next()
            assert busy.value.code is Code.BUSY
            await asyncio.sleep(0.4)
            only = world.holder.made[0]
            assert isinstance(only, FolderHeld) and only.released == 0, "somebody reads it"
        assert await asyncio.to_thread(only.gone.wait, 5)
        with pytest.raises(ZaibeiError) as gone:
            await one.offer(replace(WANTED, transfer=first.transfer))
        assert gone.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("change", ["shorter", "gone", "another content", "a link"])
async def test_files_that_changed_under_the_sender_are_never_taken(tmp_path: Path, change: str) -> None:
    files = some_files()
    world = World(tmp_path, folder_of(files, tmp_path / "files"))
    path = tmp_path / "files" / "000002.sst"
    if change == "shorter":
        path.write_bytes(files[path.name][:-1])
    elif change == "another content":
        path.write_bytes(os.urandom(len(files[path.name])))
    else:
        path.unlink()
        if change == "a link":
            (tmp_path / "secret").write_bytes(files[path.name])
            path.symlink_to(tmp_path / "secret")
    async with world.serving(), world.sender() as sender:
        with pytest.raises(ZaibeiError) as refused:
            await fetch(sender, WANTED, tmp_path / "in", ample, limits=QUICK)
    expected = Code.VERIFICATION_FAILED if change == "another content" else Code.DAMAGED
    assert refused.value.code is expected and path.name not in found_in(tmp_path / "in")


async def test_a_sender_that_is_started_anew_in_the_middle(tmp_path: Path) -> None:
    files = {f"{n}.sst": os.urandom(300_000) for n in range(6)}
    holder = folder_of(files, tmp_path / "files")
    slow = World(tmp_path, holder, ServeLimits(chunk_octets=10_000), Pace(2_000_000))
    limits = replace(QUICK, rounds_max=3, pause_s=0.05, pause_s_max=0.05)
    async with slow.serving(), slow.channel() as channel:
        task = asyncio.create_task(
            fetch(GrpcSender(channel, CLUSTER, FOLLOWER, "m"), WANTED, tmp_path / "in", ample, limits=limits)
        )
        await asyncio.sleep(0.6)
    with pytest.raises(ZaibeiError) as broke:
        await task
    assert broke.value.code is Code.UNREACHABLE
    again = World(tmp_path, holder)
    async with again.serving(), again.sender() as sender:
        done = await fetch(sender, WANTED, tmp_path / "in", ample, limits=limits)
    assert found_in(tmp_path / "in") == files
    assert 0 < done.fetched_octets < done.manifest.octets


# ------------------------------------------------------------------------------------------------------ two stores
class Stores:
    """A leader's store and a follower's, of one source."""

    def __init__(self, folder: Path) -> None:
        self.budgets = [small_budget(folder), small_budget(folder)]
        self.leader = SourceStore.open(folder / "leader", SOURCE, self.budgets[0])
        self.follower = SourceStore.open(folder / "follower", SOURCE, self.budgets[1])
        self.group, self.source = Group(self.leader), Source()
        self.group.grant(self.source.grant())

    def follow(self) -> None:
        self.follower.apply(self.group.log[self.follower.applied()[0] :])

    def close(self) -> None:
        self.leader.close()
        self.follower.close()


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


async def test_a_lagging_member_ends_with_the_leaders_content(stores: Stores, tmp_path: Path) -> None:
    group, source = stores.group, stores.source
    group.append(source.cut([put(n) for n in range(200)]))
    stores.follow()
    for start in range(1_000, 6_000, 500):
        group.append(source.cut([put(n, f"https://example.cn/{n}" * 9) for n in range(start, start + 500)]))
    world = World(tmp_path, FolderHolder(tmp_path, store=stores.leader))
    async with world.serving(), world.sender() as sender:
        transfer, promised = await world.service.hold(WANTED)  # as a leader does before it says so to the follower
        group.append(source.cut([put(9_000)]))  # it goes on
        budget = stores.budgets[1]
        wanted = replace(WANTED, transfer=transfer, index_min=promised.index)
        done = await fetch(sender, wanted, stores.follower.fetching, budget.disk.require_for)
        assert done.manifest == promised
        assert await asyncio.to_thread(stores.follower.install) == (promised.index, promised.term)
        assert stores.follower.digest_at(promised.digest.position) == promised.digest
    stores.follow()
    assert stores.follower.digest_at(source.head) == source.digest() == stores.leader.digest_at(source.head)
    assert held(stores.follower) == source.content
    assert not [path for path in (tmp_path / "leader").iterdir() if path.name.startswith("ckpt")]
    stores.close()


async def test_a_lost_member_is_fed_while_changes_go_on(stores: Stores, tmp_path: Path) -> None:
    group, source = stores.group, stores.source
    for start in range(0, 3_000, 500):
        group.append(source.cut([put(n) for n in range(start, start + 500)]))
    world = World(tmp_path, FolderHolder(tmp_path, store=stores.leader), ServeLimits(chunk_octets=4_096), Pace(400_000))
    async with world.serving(), world.sender() as sender:
        task = asyncio.create_task(fetch(sender, WANTED, stores.follower.fetching, ample, limits=FetchLimits(credit_chunks=8)))
        step = 0
        while not task.done():
            step += 1
            group.append(source.cut([put(step % 700, f"https://example.cn/{step}")]))
            if step % 20 == 0:
                await asyncio.to_thread(stores.leader.flush)
            await asyncio.sleep(0.005)
        done = await task
    assert len(group.log) > done.manifest.index
    await asyncio.to_thread(stores.follower.install)
    stores.follow()
    assert held(stores.follower) == source.content and stores.follower.digest_at(source.head) == source.digest()
    stores.close()


async def test_a_loaded_generation_goes_to_followers_and_is_switched_to(stores: Stores, tmp_path: Path) -> None:
    group, source = stores.group, stores.source
    group.append(source.cut([put(n) for n in range(800)]))
    digest = source.digest()
    group.load_begin(1, digest.position)
    begun = len(group.log)
    stores.follow()
    world = World(tmp_path, FolderHolder(tmp_path, store=stores.leader))
    wanted = Wanted(GROUP, SOURCE, TransferKind.GENERATION, number=1, begun=begun)
    async with world.serving(), world.sender() as sender:
        with pytest.raises(ZaibeiError) as early:
            await sender.offer(wanted)
        assert early.value.code is Code.NOT_FOUND
        await load(stores.leader, 1, dict(source.content), digest)
        await fetch(sender, wanted, stores.follower.fetching_side(1, begun), ample)
        staged = await asyncio.to_thread(stores.follower.adopt_side, 1, begun)
        assert staged.digest == digest
    group.load_staged(1)
    group.append(source.cut([put(5_000)]), side=1)
    group.load_switch(1, digest)
    stores.follow()
    assert stores.follower.state().generation == 1 and held(stores.follower) == source.content
    assert stores.follower.digest_at(source.head) == source.digest()
    stores.close()


def test_what_a_store_holds_is_what_this_room_serves() -> None:
    """Ports of two rooms that do not know each other fit."""
    taken: Held = Checkpoint(Path(), describe(some_files(), SOURCE))
    assert taken.manifest.source == SOURCE


def test_identities_are_told_apart(tmp_path: Path) -> None:
    one: Identity = ensure_identity(tmp_path / "a", "member-1")
    assert Known({one.fingerprint: 1}).member_of([one.certificate_pem]) == (1, "member-1")
