"""A tenant over its rate: refused before anything dear is done, told late, and never more than one turn of the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant.desk import Asked, Verdict
from hosting.tenant.edge_clerk import Told
from hosting.tenant.edge_service import RegistrationService, refusal_of
from hosting.tenant.edge_stream import ChangeStream, NotTaken, Taken
from hosting.tenant.edge_turns import Turn, Turns, held_back
from hosting.tenant.limits import HELD_MAX, TURN_S_MAX
from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Office, Offices, OfficeSettings
from hosting.tenant.papers import AnyPaper, Quota, Right, Tenant, key_of, value_of
from hosting.tenant.rates import HELD_MS_MAX, Bucket
from hosting.v1 import registration_pb2
from replica.model.batch import OP_PUT, Change
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.handle.values import HandleValue, encode_values
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins
from replica.model.precondition import NOTHING

PREFIX = "88.118.9"
GOOD = encode_values([HandleValue(1, b"URL", b"a")])
OVER = Trouble(Code.OVER_QUOTA, "used up", retry=True, retry_ms=1)
WAIT_S = 30.0


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    folder: Path = tmp_path_factory.mktemp("tenant")
    return Peer("tenant-9", ensure_identity(folder / "i", "tenant-9").certificate_pem, role="registrar")


class Port:
    """A tenant's registration port over a group in memory; its registrar may create and modify."""

    def __init__(self, peer: Peer) -> None:
        self.now_ms, self.peer = 1_000, peer
        self.group = MemoryGroup("region-9", [prefix_key(PREFIX)])
        settings = OfficeSettings("region-9", (prefix_key(PREFIX),), Pins((peer,)))
        self.offices = Offices([settings], lambda _: self.group, lambda: self.now_ms)
        self.service = RegistrationService(self.offices)

    @property
    def office(self) -> Office:
        return self.offices.office_of("region-9")

    async def write(self, ident: str, paper: AnyPaper) -> None:
        verdict = await self.office.clerk.change(Change(OP_PUT, key_of(paper, ident), value_of(paper)), NOTHING)
        assert verdict.position is not None, verdict

    async def begun(self, quota: Quota) -> None:
        await self.write("region-9", Tenant(title="Region 9"))
        await self.write("r", Right(who=self.peer.fingerprint, operations=("create", "modify"), under=PREFIX))
        await self.write("tenant", quota)

    async def put(self, suffix: str, values: bytes = GOOD) -> Code | None:
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        change = registration_pb2.Change(identifier=f"{PREFIX}/{suffix}", values=values)
        [taken] = await self.service._take(self.peer, [change], answer.set_result)
        if isinstance(taken, NotTaken):
            return taken.trouble.code
        verdict = await answer
        return None if verdict.position is not None else verdict.trouble.code if verdict.trouble else Code.UNKNOWN


async def test_the_rate_is_asked_before_a_body_is_read_and_asking_takes_nothing_from_it(peer: Peer) -> None:
    port = Port(peer)
    await port.begun(Quota(registrations_per_s=1.0, burst_s=1.0))
    assert await port.put("a", b"no values") is Code.MALFORMED, "and what was never carried out takes nothing"
    assert await port.put("a") is None
    for _ in range(20):
        assert await port.put("b", b"no values") is Code.OVER_QUOTA
    port.now_ms += 1_000
    assert await port.put("b") is None


async def test_a_quota_that_was_raised_holds_from_the_next_change_on(peer: Peer) -> None:
    port = Port(peer)
    await port.begun(Quota(registrations_per_s=0.0))
    assert [await port.put("a"), await port.put("a")] == [Code.OVER_QUOTA] * 2
    await port.write("tenant", Quota(registrations_per_s=5.0))
    assert await port.put("a") is None


def test_whoever_is_refused_again_and_again_is_told_later_and_later() -> None:
    bucket = Bucket(10.0, 0.1, 0)
    assert bucket.take(0) == 0 and bucket.take(0) == 100
    assert [bucket.refused(0) for _ in range(12)] == [100, 200, 300, 400, 500, 600, 700, 800, 900, 1_000, 1_000, 1_000]
    assert bucket.refused(500) <= 500 + 100  # tokens that came back are off the count
    assert bucket.refused(60_000) == 0
    assert Bucket(0.0, 1.0, 0).refused(0) == HELD_MS_MAX


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 400])
def test_many_that_are_refused_at_once_wait_as_the_last_of_them_would(count: int) -> None:
    single, many = Bucket(10.0, 0.1, 0), Bucket(10.0, 0.1, 0)
    assert single.take(0) == many.take(0) == 0
    assert many.refused(0, count) == [single.refused(0) for _ in range(count)][-1]
    assert many.refused(50) == single.refused(50)


@given(st.lists(st.integers(0, 300), max_size=50), st.floats(0.0, 500), st.floats(0.01, 5))
def test_no_refusal_is_held_back_beyond_its_limit_and_none_takes_a_token(gaps: list[int], per_s: float, burst_s: float) -> None:
    noisy, calm, now_ms = Bucket(per_s, burst_s, 0), Bucket(per_s, burst_s, 0), 0
    for gap in gaps:
        now_ms += gap
        assert 0 <= noisy.refused(now_ms) <= HELD_MS_MAX
        assert noisy.take(now_ms) == calm.take(now_ms)


async def test_answers_held_back_are_bounded_and_others_are_not_held(peer: Peer) -> None:
    port = Port(peer)
    await port.begun(Quota(registrations_per_s=0.0))
    assert await port.put("a") is Code.OVER_QUOTA
    office = port.office
    assert office.held_ms(OVER) == HELD_MS_MAX and office.held_ms(Trouble(Code.BUSY, "full", retry=True)) == 0
    office.held = HELD_MAX
    assert office.held_ms(OVER) == 0
    office.held = 0
    waiting = asyncio.create_task(held_back(office, OVER))
    await asyncio.sleep(0)
    assert office.held == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert office.held == 0


class Stream:
    """A stream whose desk takes what is named `…/a`, and refuses all else over a rate of 20/s."""

    def __init__(self, office: Office) -> None:
        self.office, self.told_s = office, 0.0
        self.read_s: list[float] = []
        self.stream = ChangeStream(self._take, refusal_of, Turns())

    async def _take(self, changes: Sequence[registration_pb2.Change], told: Told) -> list[Taken | NotTaken]:
        name = changes[0].identifier
        if not name.endswith("/a"):
            return [NotTaken(OVER, self.office)]
        [asked] = self.office.clerk.ask([(Change(OP_PUT, b"k" + name.encode(), GOOD), NOTHING)], told)
        assert isinstance(asked, Asked)
        return [Taken(self.office, asked)]

    async def messages(self, *messages: list[str]) -> object:
        for names in messages:
            self.read_s.append(time.monotonic())
            changes = [registration_pb2.Change(number=number, identifier=name) for number, name in enumerate(names)]
            yield registration_pb2.PutManyRequest(changes=changes)


async def test_refusals_of_a_stream_are_told_late_and_nothing_is_read_meanwhile(peer: Peer) -> None:
    port = Port(peer)
    await port.begun(Quota(registrations_per_s=20.0, burst_s=0.01))
    assert await port.put("x") is None and await port.put("x") is Code.OVER_QUOTA
    one, codes = Stream(port.office), []
    async with asyncio.timeout(WAIT_S):
        async for response in one.stream.run(one.messages([f"{PREFIX}/b"] * 8, [f"{PREFIX}/c"])):  # type: ignore[arg-type]
            one.told_s = one.told_s or time.monotonic()
            codes += [result.refusal.code for result in response.results]
    await one.stream.close()
    assert codes == ["over_quota"] * 9
    first_s, second_s = one.read_s
    assert min(one.told_s, second_s) - first_s >= 0.3, "7 of the 8 wait for 50 ms each"


async def test_what_a_stream_holds_back_counts_to_its_tenants_answers(peer: Peer) -> None:
    port = Port(peer)
    await port.begun(Quota(registrations_per_s=0.0))
    assert await port.put("x") is Code.OVER_QUOTA
    one = Stream(port.office)
    reading = asyncio.create_task(one.stream._read(one.messages([f"{PREFIX}/b"] * 8)))  # type: ignore[arg-type]
    async with asyncio.timeout(WAIT_S):
        while not one.stream._unsent:  # noqa: ASYNC110 - of the stream under test
            await asyncio.sleep(0)
        assert port.office.held == 1, "one message, one answer"
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert port.office.held == 0
    await one.stream.close()


async def test_names_below_one_prefix_are_refused_together_until_there_is_room_again(peer: Peer) -> None:
    port, looked, read_s = Port(peer), list[str](), list[float]()
    await port.begun(Quota(registrations_per_s=100.0, burst_s=0.01))

    async def take(changes: Sequence[registration_pb2.Change], told: Told) -> list[Taken | NotTaken]:
        found = await port.service._take(port.peer, changes, told)
        looked.extend(change.identifier for change, _ in zip(changes, found, strict=False))
        return found

    async def messages() -> object:
        names = [f"{PREFIX}/{number}" for number in range(50)]
        changes = [registration_pb2.Change(number=number, identifier=name, values=GOOD) for number, name in enumerate(names)]
        read_s.append(time.monotonic())
        yield registration_pb2.PutManyRequest(changes=[*changes, registration_pb2.Change(number=50, identifier="88.1180/x")])
        read_s.append(time.monotonic())
        port.now_ms += 10
        yield registration_pb2.PutManyRequest(changes=[registration_pb2.Change(number=51, identifier=f"{PREFIX}/z", values=GOOD)])

    stream, told = ChangeStream(take, refusal_of, Turns()), dict[int, str]()
    async with asyncio.timeout(WAIT_S):
        async for response in stream.run(messages()):  # type: ignore[arg-type]
            told |= {one.number: one.refusal.code for one in response.results}
    await stream.close()
    assert told == {0: "", **dict.fromkeys(range(1, 50), "over_quota"), 50: "not_owner", 51: ""}
    assert port.offices.denials.total == 49, "each is counted, however it was refused"
    assert looked == [f"{PREFIX}/0", f"{PREFIX}/1", "88.1180/x", f"{PREFIX}/z"]
    assert read_s[1] - read_s[0] >= 0.4, "49 wait for 10 ms each: refused together, they are held back as many"


class Clock:
    """Goes on by half a turn whenever somebody looks."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += TURN_S_MAX / 2
        return self.now_s


async def test_a_tenant_has_one_turn_a_round_however_many_streams_it_has() -> None:
    noisy, quiet = Turns(Clock()), Turns(Clock())
    done: list[str] = []

    async def work(name: str, turns: Turns, count: int) -> None:
        async with Turn(turns) as turn:
            for _ in range(count):
                await turn.go_on()
                done.append(name)

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(work("noisy", noisy, 100) for _ in range(8)), work("quiet", quiet, 10))
    last = len(done) - 1 - done[::-1].index("quiet")
    assert done.count("noisy") == 800 and done[: last + 1].count("noisy") <= 3 * 10, "8 streams, but no more than one has"


async def test_who_is_cancelled_while_it_waits_ends_nobody_elses_turn() -> None:
    turns = Turns()
    async with Turn(turns):
        other = asyncio.create_task(Turn(turns).__aenter__())
        await asyncio.sleep(0)
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert turns.mine.locked()
    assert not turns.mine.locked()


async def test_a_turn_that_is_cancelled_between_two_rounds_ends_once() -> None:
    turns = Turns(Clock())

    async def work() -> None:
        async with Turn(turns) as turn:
            while True:
                await turn.go_on()

    for rounds in range(20):  # whatever they wait for at that moment
        one, two = (asyncio.create_task(work()) for _ in range(2))
        for who in (one, two):
            for _ in range(rounds):
                await asyncio.sleep(0)
            who.cancel()
            await asyncio.gather(who, return_exceptions=True)
        assert not turns.mine.locked()


async def test_a_stream_that_is_cancelled_where_the_round_was_over_before_it_began_leaves_the_turn() -> None:
    turns = Turns(Clock())

    async def work() -> None:
        while not turns.over():
            pass
        async with Turn(turns) as turn:
            await turn.go_on()

    one = asyncio.create_task(work())
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    assert not turns.mine.locked()


async def test_a_change_over_the_rate_raises_what_its_caller_is_told(peer: Peer) -> None:
    port = Port(peer)
    await port.begun(Quota(registrations_per_s=1.0, burst_s=1.0))
    port.office.has_room()
    assert await port.put("a") is None
    with pytest.raises(ZaibeiError) as fault:
        port.office.has_room()
    assert fault.value.trouble.retry and 0 < fault.value.trouble.retry_ms <= 1_000
