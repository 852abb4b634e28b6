"""Each fault breaks what it says, and its heal mends it: proxies on loopback, a process under the shim, damaged and old files."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chaos.faults import edge_damage, edge_image, edge_process
from chaos.faults.edge_datagram_proxy import DatagramProxy
from chaos.faults.edge_shim import Call, Shim, build
from chaos.faults.edge_stream_proxy import StreamProxy, Way
from chaos.faults.fault import MOVES, Fault, FaultLog, FaultState
from chaos.faults.mesh import Mesh
from chaos.faults.rules import CUT, CUT_DATAGRAMS, OPEN, DatagramRule, StreamRule, fates_ms
from replica.model.errors import InvariantBroken, ZaibeiError

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("127.0.0.1", "::1")
SOON_S = 30.0
SILENT_S = 0.2  # nothing came within it: taken as nothing comes


# --------------------------------------------------------------------------------------------------------------- contexts


async def test_a_fault_heals_whatever_happens() -> None:
    log, done = FaultLog(), list[str]()

    async def note(what: str) -> None:
        done.append(what)

    def fault(name: str) -> Fault:
        return Fault(name, lambda: note(f"{name} on"), lambda: note(f"{name} off"), log)

    with pytest.raises(ValueError, match="inside"):
        async with fault("a"):
            raise ValueError("inside")

    async def hangs() -> None:
        async with fault("b"):
            await asyncio.sleep(60)

    task = asyncio.create_task(hangs())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert done == ["a on", "a off", "b on", "b off"]
    assert [event.what for event in log.events] == ["active", "healed", "active", "healed"] and not log.stuck()


async def test_a_fault_that_cannot_begin_or_heal_spoils_the_run() -> None:
    log = FaultLog()

    async def fails() -> None:
        raise OSError("no")

    for fault in (Fault("begin", fails, log=log), Fault("heal", lambda: asyncio.sleep(0), fails, log)):
        with pytest.raises(OSError, match="no"):
            async with fault:
                pass
    assert [event.fault for event in log.stuck()] == ["begin", "heal"]
    with pytest.raises(InvariantBroken, match="twice"):
        async with fault:
            pass
    assert not MOVES[FaultState.HEALED] and not MOVES[FaultState.STUCK]


# ------------------------------------------------------------------------------------------------------------------- TCP


@asynccontextmanager
async def echoing(seed: int = 0) -> AsyncIterator[StreamProxy]:
    """A proxy in front of a server that sends everything back, over both families."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    servers = [await asyncio.start_server(echo, host, 0) for host in HOSTS]
    targets = [(host, server.sockets[0].getsockname()[1]) for host, server in zip(HOSTS, servers, strict=True)]
    proxy = await StreamProxy([(host, 0) for host in HOSTS], targets, seed).start()
    try:
        yield proxy
    finally:
        await proxy.stop()
        for server in servers:
            server.close()


class Caller:
    """One connection through a proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, proxy: StreamProxy, family: int = 0) -> Caller:
        return cls(*await asyncio.open_connection(*proxy.addresses[family]))

    async def echo(self, octets: bytes = b"ping", seconds: float = SOON_S) -> float:
        """Send and get back; returns seconds. Raises TimeoutError: nothing came."""
        began = time.monotonic()
        self.writer.write(octets)
        async with asyncio.timeout(seconds):
            assert await self.reader.readexactly(len(octets)) == octets
        return time.monotonic() - began

    async def quick(self, octets: bytes, seconds: float) -> float:
        """The first echo within so many seconds, of twenty: a busy machine is late now and then, a slow wire every time."""
        took = [await self.echo(octets)]
        while took[-1] >= seconds and len(took) < 20:
            took.append(await self.echo(octets))
        assert took[-1] < seconds, took
        return took[-1]

    async def silent(self) -> bool:
        try:
            async with asyncio.timeout(SILENT_S):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@pytest.mark.parametrize("family", [0, 1])
async def test_a_cut_is_silent_and_loses_nothing(family: int) -> None:
    async with echoing() as proxy:
        caller = await Caller.connect(proxy, family)
        await caller.echo()
        for way in Way:
            proxy.set(way, CUT)
            caller.writer.write(b"held")
            assert await caller.silent()
            proxy.heal()
            async with asyncio.timeout(SOON_S):
                assert await caller.reader.readexactly(4) == b"held"
        proxy.set(Way.BACK, CUT)
        late = await Caller.connect(proxy, family)  # as a SYN whose answer is lost: nothing comes about until the heal
        late.writer.write(b"late")
        assert await late.silent()
        proxy.heal()
        async with asyncio.timeout(SOON_S):
            assert await late.reader.readexactly(4) == b"late"


async def test_delay_jitter_and_rate() -> None:
    async with echoing(seed=7) as proxy:
        caller = await Caller.connect(proxy)
        await caller.quick(b"ping", 0.05)
        for way in Way:
            proxy.set(way, StreamRule(delay_ms=60, jitter_ms=20))
        assert await caller.quick(b"ping", 0.5) >= 0.12
        proxy.heal()
        proxy.set(Way.FORTH, StreamRule(octets_per_s=200_000))
        await caller.echo()  # the first piece finds the wire empty
        assert await caller.quick(bytes(100_000), 1.5) >= 0.3
        proxy.heal()
        await caller.quick(bytes(100_000), 0.3)


async def test_reset_drop_refuse_and_half_open() -> None:
    async with echoing() as proxy:
        reset, ended = await Caller.connect(proxy), await Caller.connect(proxy)
        await asyncio.gather(reset.echo(), ended.echo())
        assert proxy.reset() == 2
        with pytest.raises(ConnectionResetError):
            await reset.reader.read(1)
        ended = await Caller.connect(proxy)
        await ended.echo()
        assert proxy.drop() == 1 and await ended.reader.read(1) == b""
        proxy.refuse()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await (await Caller.connect(proxy)).echo()
        proxy.heal()
        half = await Caller.connect(proxy)
        await half.echo()
        assert proxy.half_open() == 1
        half.writer.write(b"into the void")
        assert await half.silent()
        await (await Caller.connect(proxy)).echo()  # new ones are whole
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            await half.reader.read(1)


async def test_partitions_of_a_mesh() -> None:
    async with echoing() as one_two, echoing() as two_one:
        log = FaultLog()
        mesh = Mesh({(1, 2): one_two, (2, 1): two_one}, log)
        async with mesh.parted([1], [2]):
            assert {link.rule(way) for link in mesh.links.values() for way in Way} == {CUT}
        async with mesh.one_way([1], [2]):
            assert [one_two.rule(way) for way in Way] == [CUT, OPEN] and [two_one.rule(way) for way in Way] == [OPEN, CUT]
        async with mesh.refused([(1, 2)]):
            assert one_two.refusing and not two_one.refusing
        assert {link.rule(way) for link in mesh.links.values() for way in Way} == {OPEN} and not one_two.refusing
        assert [event.what for event in log.events] == ["active", "healed"] * 3


# ------------------------------------------------------------------------------------------------------------------- UDP


class Numbers(asyncio.DatagramProtocol):
    """Keeps what came, or sends it back."""

    def __init__(self, *, back: bool = False) -> None:
        self.back, self.got = back, list[int]()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append(int(data))
        if self.back:
            self.transport.sendto(data, addr)


@pytest.mark.parametrize("family", [0, 1])
async def test_datagrams_are_lost_doubled_late_and_cut_by_a_seed(family: int) -> None:
    loop = asyncio.get_running_loop()
    server, there = await loop.create_datagram_endpoint(lambda: Numbers(back=True), local_addr=(HOSTS[family], 0))
    target = [server.get_extra_info("sockname")[:2]]
    proxy = await DatagramProxy([(host, 0) for host in HOSTS], target, seed=3).start()
    client, here = await loop.create_datagram_endpoint(Numbers, remote_addr=proxy.addresses[family])

    async def send(count: int) -> list[int]:
        here.got.clear(), there.got.clear()
        for number in range(count):
            client.sendto(b"%d" % number)
            await asyncio.sleep(0.0005)
        await asyncio.sleep(SILENT_S)
        return list(there.got)

    try:
        assert await send(20) == list(range(20)) and here.got == list(range(20))
        proxy.set(Way.FORTH, DatagramRule(lost=0.3, doubled=0.2, late=0.2))
        got = await send(200)
        assert 100 < len(set(got)) < 180 and len(got) > len(set(got)) and got != sorted(got)
        proxy.heal()
        proxy.set(Way.BACK, CUT_DATAGRAMS)
        assert len(await send(20)) == 20 and here.got == []
        proxy.heal()
        assert len(await send(20)) == 20 and len(here.got) == 20
    finally:
        client.close(), server.close()
        await proxy.stop()


def test_fates_are_the_same_for_the_same_seed() -> None:
    rule = DatagramRule(lost=0.2, doubled=0.2, late=0.2, jitter_ms=5)
    first, second = (tuple(fates_ms(rule, chance) for _ in range(50)) for chance in (Random(1), Random(1)))
    other = tuple(fates_ms(rule, Random(2)) for _ in range(50))
    assert first == second != other and {len(fates) for fates in first} == {0, 1, 2}


# ------------------------------------------------------------------------------------------------------------------ shim

needs_compiler = pytest.mark.skipif(build() is None, reason="the fault shim needs a C compiler: install the package gcc")


class Child:
    def __init__(self, shim: Shim) -> None:
        argv = [sys.executable, "-m", "tests.faults.shim_child"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, cwd=ROOT, env={**os.environ, **shim.env()}, stdin=pipe, stdout=pipe, text=True)

    def ask(self, *words: object) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """Rules of a shim are about paths without links."""
    return tmp_path.resolve()


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    return Shim(tmp_path / "side")


@pytest.fixture
def child(shim: Shim) -> Iterator[Child]:
    child = Child(shim)
    yield child
    child.process.kill()
    child.process.communicate()


@needs_compiler
async def test_a_disk_fails_while_its_process_runs(shim: Shim, child: Child, tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir(), other.mkdir()
    mine, theirs = data / "a", other / "a"
    pattern = f"{data}*"
    assert child.ask("sync", mine).startswith("ok")
    async with shim.sync_fails(pattern, times=1) as fault:
        assert child.ask("sync", theirs).startswith("ok")  # another prefix
        assert child.ask("sync", mine) == f"errno {errno.EIO}"
        assert child.ask("sync", mine).startswith("ok") and fault.hits == 1
    async with shim.sync_slow(pattern, 150):
        assert int(child.ask("sync", mine).split()[1]) >= 150
    async with shim.full(pattern):
        assert child.ask("sync", mine) == f"errno {errno.ENOSPC}" and child.ask("make", data / "d") == f"errno {errno.ENOSPC}"
        assert child.ask("unlink", mine) == "ok"  # room can be made on a full disk
    async with shim.read_only(pattern):
        for words in (("sync", data / "b"), ("make", data / "d"), ("rename", theirs, data / "c"), ("unlink", mine)):
            assert child.ask(*words) == f"errno {errno.EROFS}"
    assert child.ask("sync", data / "b").startswith("ok") and child.ask("make", data / "d") == "ok"


@needs_compiler
async def test_a_lie_says_yes_and_syncs_nothing(shim: Shim, child: Child, tmp_path: Path) -> None:
    if (tracer := shutil.which("strace")) is None:
        pytest.xfail("what reaches the kernel is seen with strace only")
    seen = tmp_path / "calls"
    async with shim.sync_lies(f"{tmp_path}/*") as fault:
        argv = [tracer, "-f", "-e", "trace=fsync,fdatasync", "-o", str(seen), "-p", str(child.process.pid)]
        watching = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.DEVNULL)
        await asyncio.sleep(0.5)
        assert child.ask("sync", tmp_path / "a").startswith("ok") and fault.hits == 1
        watching.terminate()
        await watching.wait()
    assert "sync(" not in seen.read_text()


@needs_compiler
async def test_a_crash_at_a_chosen_call(shim: Shim, child: Child, tmp_path: Path) -> None:
    async with shim.dies_at(f"{tmp_path}/*", Call.SYNC, skip=2):
        assert [child.ask("sync", tmp_path / "a")[:2] for _ in range(3)] == ["ok", "ok", ""]
        await edge_process.gone(child.process.pid)
    assert child.process.wait(10) == -9 and (tmp_path / "a").stat().st_size == 3


@needs_compiler
async def test_a_process_stands_right_before_a_chosen_call(shim: Shim, child: Child, tmp_path: Path) -> None:
    assert child.process.stdin is not None and child.process.stdout is not None
    async with shim.stops_at(f"{tmp_path}/*", Call.SYNC, skip=1) as fault:
        assert child.ask("sync", tmp_path / "a").startswith("ok")
        child.process.stdin.write(f"sync {tmp_path / 'a'}\n")
        child.process.stdin.flush()
        for _ in range(int(SOON_S / 0.01)):
            if set(edge_process.thread_states(child.process.pid)) == {"T"}:
                break
            await asyncio.sleep(0.01)
        assert fault.hits == 1 and (tmp_path / "a").stat().st_size == 2  # written, and not synced
        os.kill(child.process.pid, signal.SIGCONT)
        assert child.process.stdout.readline().startswith("ok")


@needs_compiler
async def test_the_wall_clock_jumps_and_nobody_oversleeps(shim: Shim, child: Child) -> None:
    def ahead_ms() -> tuple[float, float]:
        """Of our own clock, at least and at most: the child looked somewhere between two looks of ours."""
        before, there, after = time.time() * 1_000, int(child.ask("clock")), time.time() * 1_000
        return there - after - 10, there - before + 10

    for by_ms in (3_600_000, -7_200_000):
        async with shim.clock_moved(by_ms):
            least, most = ahead_ms()
            assert least <= by_ms <= most
            began_s = time.monotonic()
            assert 0.4 <= float(child.ask("wait", 0.2)) <= time.monotonic() - began_s + 0.1 < SOON_S
    least, most = ahead_ms()
    assert least <= 0 <= most
    began_s = time.monotonic()
    async with shim.clock_moved(0, drift_ppm=500_000):
        set_s = time.monotonic()
        await asyncio.sleep(1)
        asked_s = time.monotonic()
        least, most = ahead_ms()
        assert least <= (time.monotonic() - began_s) * 500 and most >= (asked_s - set_s) * 500


# ------------------------------------------------------------------------------------------------------ processes and files


@needs_compiler
async def test_freeze_and_kill(shim: Shim, child: Child) -> None:
    restarted: list[int] = []

    async def restart() -> None:
        restarted.append(1)

    async with edge_process.frozen(child.process.pid):
        assert set(edge_process.thread_states(child.process.pid)) == {"T"}
    assert child.ask("clock")
    async with edge_process.killed([child.process.pid], restart):
        assert not edge_process.runs(child.process.pid) and not restarted
    assert restarted == [1]


def test_an_old_image_is_put_back(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "a").write_text("old")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(data / "admin.sock"))
    image = edge_image.take(data, tmp_path / "image")
    (data / "sub" / "a").write_text("new"), (data / "b").write_text("newer")
    edge_image.put_back(image, data)
    assert {path.name for path in data.rglob("*")} == {"sub", "a"} and (data / "sub" / "a").read_text() == "old"
    edge_image.wipe(data)
    assert list(data.iterdir()) == [] and (image / "sub" / "a").exists()


async def test_damage_and_its_heal(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.sst").write_bytes(bytes(1_000))
    (tmp_path / "empty.sst").touch()
    path = edge_damage.pick(tmp_path, "*.sst", Random(5))
    assert path == edge_damage.pick(tmp_path, "*.sst", Random(5)) and path.name != "empty.sst"
    for how in ("flip", "truncate", "remove"):
        async with edge_damage.damaged([path], how, 0.5, put_back=True):
            assert not path.exists() or path.read_bytes() != bytes(1_000)
        assert path.read_bytes() == bytes(1_000)
    with pytest.raises(ZaibeiError, match="no file"):
        edge_damage.pick(tmp_path, "*.wal", Random(5))
