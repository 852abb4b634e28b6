"""Clients find the leader by themselves and repeat only what is safe, over real connections to groups in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hosting.tenant.edge_client import Done, Put, RegistrationClient
from hosting.tenant.edge_port import RegistrationPort
from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Offices, OfficeSettings
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins
from replica.model.precondition import ABSENT
from tests.integration.tenant_world import url

PREFIX = "88.118.9"


@dataclass
class Seat:
    """One member's registration port over a group in memory."""

    group: MemoryGroup
    port: RegistrationPort
    identity: Identity

    @property
    def address(self) -> str:
        host, port = self.port.addresses[0]
        return f"{host}:{port}"


@asynccontextmanager
async def seat(folder: Path, name: str, tenant: Identity, *, at_once: bool = True) -> AsyncIterator[Seat]:
    identity = ensure_identity(folder / name, name)
    group = MemoryGroup("region-9", [prefix_key(PREFIX)], at_once=at_once)
    pins = Pins((Peer(tenant.name, tenant.certificate_pem, role="registrar"),))
    offices = Offices([OfficeSettings("region-9", (prefix_key(PREFIX),), pins)], lambda _: group, lambda: 0)
    port = RegistrationPort(identity, offices)
    await port.start((("127.0.0.1", 0),))
    try:
        yield Seat(group, port, identity)
    finally:
        await port.stop()


@pytest.fixture
def tenant(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "tenant", "tenant-9")


def client_of(tenant: Identity, *seats: Seat, addresses: list[str] | None = None, patience_s: float = 5.0) -> RegistrationClient:
    certificates = [one.identity.certificate_pem for one in seats]
    return RegistrationClient(addresses or [one.address for one in seats], tenant, certificates, patience_s=patience_s)


def code_of(done: Done) -> Code | None:
    return None if done.trouble is None else done.trouble.code


async def test_a_follower_names_the_leader_and_the_client_goes_there(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m1", tenant) as follower, seat(tmp_path, "m2", tenant) as leader:
        follower.group.leader = False
        follower.group.elsewhere = (leader.address,)
        async with client_of(tenant, follower, leader, addresses=[follower.address]) as client:
            done = await client.put(f"{PREFIX}/A", url("a"), ABSENT)
            assert done.ok and done.tries == 2
            assert (await client.put(f"{PREFIX}/B", url("b"))).tries == 1, "it stays there"
            [found] = await client.get([f"{PREFIX}/A"])
            assert found.found
        assert len(leader.group.content.records) == 2 and not follower.group.content.records


async def test_members_that_name_each_other_are_not_asked_without_end(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m1", tenant) as one, seat(tmp_path, "m2", tenant) as two:
        for mine, other in ((one, two), (two, one)):
            mine.group.leader, mine.group.elsewhere = False, (other.address,)
        async with client_of(tenant, one, two, patience_s=1.5) as client:
            done = await client.put(f"{PREFIX}/A", url("a"))
        assert (done.ok, code_of(done)) == (False, Code.NOT_LEADER) and done.tries < 30


async def test_without_a_name_the_next_member_is_asked(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m1", tenant) as follower, seat(tmp_path, "m2", tenant) as leader:
        follower.group.leader = False
        async with client_of(tenant, follower, leader) as client:
            assert (await client.put(f"{PREFIX}/A", url("a"))).ok


@pytest.mark.parametrize("named", [True, False])
async def test_a_stream_of_changes_goes_where_the_leader_is(tmp_path: Path, tenant: Identity, named: bool) -> None:
    async with seat(tmp_path, "m1", tenant) as follower, seat(tmp_path, "m2", tenant) as leader:
        follower.group.leader = False
        follower.group.elsewhere = (leader.address,) if named else ()
        addresses = [follower.address] if named else None
        async with client_of(tenant, follower, leader, addresses=addresses) as client:
            rows = [Put(f"{PREFIX}/{name}", url("a")) for name in "ABC"]
            assert [code_of(one) for one in await client.put_many(rows)] == [Code.NOT_LEADER] * 3
            assert [one.ok for one in await client.put_many(rows)] == [True] * 3
        assert len(leader.group.content.records) == 3


async def test_a_stream_that_was_lost_is_sent_elsewhere(tmp_path: Path, tenant: Identity) -> None:
    async with (
        seat(tmp_path, "m2", tenant) as leader,
        seat(tmp_path, "m1", tenant, at_once=False) as gone,
        client_of(tenant, gone, leader) as client,
    ):
        putting = asyncio.create_task(client.put_many([Put(f"{PREFIX}/A", url("a"))]))
        async with asyncio.timeout(30):
            while not gone.group.pending:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await gone.port.stop()
        assert (await putting)[0].ok is None
        assert client._at == 1, "the next one is asked at once, not after a connection was waited for"
        assert (await client.put_many([Put(f"{PREFIX}/A", url("a"))]))[0].ok


async def test_a_member_that_is_gone_is_passed_over(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m2", tenant) as leader:
        async with seat(tmp_path, "m1", tenant) as gone:
            pass
        async with client_of(tenant, gone, leader, addresses=["127.0.0.1:1", leader.address]) as client:
            done = await client.put(f"{PREFIX}/A", url("a"))
            assert done.ok and done.tries == 1, "nothing was sent to the other one"


async def test_a_member_that_keeps_silent_is_not_waited_for_again_and_again(tmp_path: Path, tenant: Identity) -> None:
    """Frozen, its connections stand: a read is asked elsewhere, and after a change without an outcome the next one goes there."""
    async with seat(tmp_path, "m1", tenant, at_once=False) as silent, seat(tmp_path, "m2", tenant) as leader:
        async with client_of(tenant, silent, leader, patience_s=1.5) as client:
            assert (await client.put(f"{PREFIX}/A", url("a"))).ok is None
            assert (await client.put(f"{PREFIX}/A", url("a"))).ok is True
        assert len(silent.group.pending) == 1


async def test_a_read_without_an_answer_is_asked_elsewhere(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m1", tenant) as frozen, seat(tmp_path, "m2", tenant) as leader:

        async def waits() -> None:
            await asyncio.sleep(60)

        frozen.group.wait = waits  # type: ignore[method-assign]
        async with client_of(tenant, frozen, leader, patience_s=3.0) as client:
            assert [one.found for one in await client.get([f"{PREFIX}/A"])] == [False]


async def test_an_answer_lost_on_the_way_is_unknown_and_not_repeated(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m1", tenant, at_once=False) as here, client_of(tenant, here, patience_s=2.0) as client:
        done = await client.put(f"{PREFIX}/A", url("a"))
        assert (done.ok, code_of(done), done.tries) == (None, Code.UNKNOWN, 1)
        assert len(here.group.pending) == 1


async def test_stepping_down_is_unknown_to_the_client(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m1", tenant, at_once=False) as here, client_of(tenant, here) as client:
        putting = asyncio.create_task(client.put(f"{PREFIX}/A", url("a")))
        streaming = asyncio.create_task(client.put_many([Put(f"{PREFIX}/B", url("b")), Put("9.9/X", url("x"))]))
        async with asyncio.timeout(30):
            while sum(len(entry.registration.preconditions) for entry, _ in here.group.pending) < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        here.group.lose()
        done, many = await putting, await streaming
        outcomes = [done.ok, many[0].ok]
        assert outcomes.count(None) >= 1 and True not in outcomes
        assert (many[1].ok, code_of(many[1])) == (False, Code.NOT_OWNER)


async def test_busy_is_repeated_since_nothing_was_done(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m1", tenant) as here, client_of(tenant, here) as client:
        here.group.refusal = ZaibeiError(Code.BUSY, "later", retry=True)
        putting = asyncio.create_task(client.put(f"{PREFIX}/A", url("a")))
        await asyncio.sleep(0.2)
        here.group.refusal = None
        done = await putting
        assert done.ok and done.tries > 1
        assert here.group.content.position.seq == 1


async def test_reads_need_the_leader_unless_stale_will_do(tmp_path: Path, tenant: Identity) -> None:
    async with seat(tmp_path, "m1", tenant) as here, client_of(tenant, here, patience_s=3.0) as client:
        assert (await client.put(f"{PREFIX}/A", url("a"))).ok
        here.group.leader = False
        with pytest.raises(ZaibeiError) as refused:
            await client.get([f"{PREFIX}/A"])
        assert refused.value.code is Code.NOT_LEADER
        [found] = await client.get([f"{PREFIX}/A"], stale=True)
        assert found.found
        assert [one.identifier async for one in client.list(PREFIX, stale=True)] == [f"{PREFIX}/A"]
