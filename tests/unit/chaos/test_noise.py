"""A noisy tenant's drill: slices by turns, what is compared, and the processes of the stage against each other."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from chaos.drills.percentile import nearest_rank
from chaos.drills.slices import (
    LATE_MS_MAX,
    NS_PER_MS,
    SAMPLES_MIN,
    SETTLE_NS,
    At,
    Sample,
    Slice,
    by_turns,
    compared,
    in_time,
)
from chaos.faults.edge_noise import MESSAGE, Noise
from chaos.standin import edge_sink
from replica.model.edge_identity import ensure_identity

S = 1_000 * NS_PER_MS
SLICES = [Slice(At.SINK, 0, S), Slice(At.MEMBER, S, 2 * S)]
WAIT_S = 30.0


def test_a_request_counts_for_the_slice_in_which_it_began_but_not_for_its_beginning() -> None:
    samples = [
        Sample(at, ms) for at, ms in ((0, 1.0), (SETTLE_NS, 2.0), (S - 1, 3.0), (S, 4.0), (S + SETTLE_NS, 5.0), (2 * S, 6.0))
    ]
    assert by_turns(samples, SLICES) == {At.SINK: [2.0, 3.0], At.MEMBER: [5.0]}


def test_the_99th_percentile_is_one_that_was_seen() -> None:
    assert nearest_rank([float(number) for number in range(1, 101)], 0.99) == 99.0
    assert nearest_rank([7.0], 0.99) == nearest_rank([7.0], 0) == 7.0
    with pytest.raises(ValueError, match="nothing"):
        nearest_rank([], 0.99)


@pytest.mark.parametrize(("slow", "held"), [(20.0, True), (20.1, False)])
def test_twice_as_slow_is_allowed_and_no_more(slow: float, held: bool) -> None:
    found = {At.SINK: [10.0] * SAMPLES_MIN, At.MEMBER: [1.0] * (SAMPLES_MIN - 4) + [slow] * 4}
    assert compared(found)[0] is held


def test_a_few_slow_ones_of_hundreds_are_not_the_99th_percentile() -> None:
    found = {At.SINK: [10.0] * SAMPLES_MIN, At.MEMBER: [10.0] * (SAMPLES_MIN - 3) + [999.0] * 3}
    assert compared(found)[0] is True


def test_too_few_samples_say_nothing() -> None:
    enough, few = [1.0] * SAMPLES_MIN, [1.0] * (SAMPLES_MIN - 1)
    assert compared({At.SINK: few, At.MEMBER: [9.0] * SAMPLES_MIN})[0] is None
    assert compared({At.SINK: enough, At.MEMBER: few})[0] is None
    assert compared({At.SINK: enough, At.MEMBER: enough})[0] is True


def test_a_slice_in_which_the_clients_were_late_is_not_looked_at() -> None:
    late_ns = int((LATE_MS_MAX + 1) * NS_PER_MS)
    assert in_time(SLICES, [(S // 2, LATE_MS_MAX)]) == SLICES, "so late is in time"
    assert in_time(SLICES, [(S // 2, LATE_MS_MAX + 1)]) == SLICES[1:]
    assert in_time(SLICES, [(S + late_ns // 2, LATE_MS_MAX + 1)]) == [], "it was late in both"
    assert in_time(SLICES, [(2 * S + late_ns + 1, LATE_MS_MAX + 1)]) == SLICES


async def test_the_noise_is_heard_where_it_is_turned_to_and_nowhere_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    caller, own = ensure_identity(tmp_path / "loud", "loud"), ensure_identity(tmp_path / "sink", edge_sink.NAME)
    (tmp_path / "sink.pem").write_bytes(own.certificate_pem)
    server = await edge_sink.served(port, own, caller.certificate_pem)
    at = {"server": f"127.0.0.1:{port}", "member_file": str(tmp_path / "sink.pem")}
    noise = Noise({"prefix": "88.119.1", "identity": str(tmp_path / "loud"), "per_s": 20_000, "at": {"sink": at, "other": at}})
    noise.turn("sink")
    refused = sent = 0
    try:
        async with asyncio.timeout(WAIT_S):
            while not refused or not sent:
                await asyncio.sleep(0.1)
                told = noise.turn("sink")
                refused, sent = refused + told["sink"]["refused"], sent + told["sink"]["sent"]
                assert not told["other"]["sent"] and not told["sink"]["registered"]
    finally:
        await noise.close()
        await server.stop(None)
    assert refused % MESSAGE == 0 and sent >= MESSAGE
