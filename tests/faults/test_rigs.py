"""The rigs for real, where this machine has them: power that fails, disks that fill, memory that ends, networks that part.

Without root these are expected failures that name what is missing; `make faults-root` fails there under CI=true.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import TypeVar

import pytest

from chaos.faults.edge_shim import Shim
from chaos.rigs.capability import NEEDS, Capability, Probe
from chaos.rigs.edge_command import Undo, run
from chaos.rigs.edge_memory import MemoryLimit
from chaos.rigs.edge_network import NetLab
from chaos.rigs.edge_power import PowerDisk
from chaos.rigs.edge_probe import probe
from chaos.rigs.edge_small_disk import SmallDisk
from chaos.rigs.edge_wire_lab import WireLab
from chaos.rigs.frames import FrameRule
from replica.model.errors import ZaibeiError
from tests.faults.test_faults import Child

T = TypeVar("T")


def needs(*capabilities: Capability) -> None:
    for capability in capabilities:
        if not (found := probe(capability)).there:
            pytest.xfail(found.missing())


def test_what_is_missing_is_named() -> None:
    assert set(NEEDS) == set(Capability)
    assert "xfsprogs" in Probe(Capability.POWER, "not root").missing() and Probe(Capability.POWER).there


def test_everything_is_undone_and_what_is_left_is_told() -> None:
    undone: list[int] = []
    undo = Undo()
    undo.add(lambda: undone.append(1))
    undo.add(lambda: run(["false"]))
    undo.add(lambda: undone.append(2))
    with pytest.raises(ZaibeiError, match=r"left behind: .*false"):
        undo.all()
    assert undone == [2, 1]


def test_power_fails(tmp_path: Path) -> None:
    needs(Capability.POWER)
    with PowerDisk(tmp_path / "d") as disk:
        for cycle in range(3):
            names = [disk.at / f"{cycle}-{number}" for number in range(20)]
            for name in names:
                with name.open("wb") as file:
                    file.write(b"x" * 1_000)
                    file.flush()
                    if int(name.name.split("-")[1]) % 2:
                        os.fsync(file.fileno())
            disk.cut()
            with pytest.raises(OSError, match="error"):
                (disk.at / "late").write_bytes(b"x")
            disk.restore()
            kept = [name for name in names if name.exists() and name.read_bytes() == b"x" * 1_000]
            assert kept == names[1::2]
    assert not disk.image.exists() and not os.path.ismount(disk.at)


async def test_a_sync_that_lies_loses_data_when_power_fails(tmp_path: Path) -> None:
    needs(Capability.POWER, Capability.SHIM)
    with PowerDisk(tmp_path / "d") as disk:
        shim = Shim(tmp_path / "side")
        child = Child(shim)
        assert child.ask("sync", disk.at / "kept").startswith("ok")
        async with shim.sync_lies(f"{disk.at.resolve()}/*"):
            assert child.ask("sync", disk.at / "lost").startswith("ok")
        disk.cut()
        child.process.kill()
        child.process.communicate()
        disk.restore()
        assert (disk.at / "kept").read_bytes() == b"x"
        assert not (disk.at / "lost").exists() or (disk.at / "lost").read_bytes() == b""


def test_a_disk_fills_and_is_made_read_only(tmp_path: Path) -> None:
    needs(Capability.SMALL_DISK)
    with SmallDisk(tmp_path / "d", 4) as disk:
        disk.fill()
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (disk.at / "a").write_bytes(bytes(8_192))
        disk.free()
        (disk.at / "a").write_bytes(bytes(8_192))
        disk.read_only(True)
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            (disk.at / "b").write_bytes(b"x")
        disk.read_only(False)
        (disk.at / "b").write_bytes(b"x")
    assert not os.path.ismount(disk.at)


def test_the_kernel_kills_who_passes_the_limit() -> None:
    needs(Capability.MEMORY)
    code = "import sys; held = []\nfor line in sys.stdin: held.append(bytearray(b'x' * int(line))); print('ok', flush=True)"
    with MemoryLimit() as group:
        hog = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert hog.stdin is not None and hog.stdout is not None
        group.add(hog.pid)
        group.limit(64 << 20)
        for megabytes in (8, 256):
            hog.stdin.write(f"{megabytes << 20}\n")
            hog.stdin.flush()
            said = hog.stdout.readline()
        assert said == "" and hog.wait(10) == -9 and group.kills() == 1
        hog.communicate()


def inside(lab: NetLab, member: int, work: Callable[[], T]) -> T:
    """Run in a thread that lives in a member's namespace."""
    answers: Queue[T | BaseException] = Queue()

    def body() -> None:
        try:
            lab.enter(member)
            answers.put(work())
        except BaseException as exc:  # noqa: BLE001 - handed to the caller
            answers.put(exc)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)
    found = answers.get_nowait()
    if isinstance(found, BaseException):
        raise found
    return found


@pytest.mark.parametrize(("kind", "needed"), [(NetLab, Capability.NETWORK), (WireLab, Capability.WIRES)])
def test_a_network_parts_one_way_and_both_ways_in_both_families(kind: type[NetLab], needed: Capability) -> None:
    needs(needed)
    with kind(3) as lab:
        boxes: dict[tuple[int, int], socket.socket] = {}

        def listen(member: int, family: int) -> socket.socket:
            box = socket.socket((socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_DGRAM)
            box.bind((lab.addresses(member)[family], 2_646))
            box.settimeout(0.3)
            return box

        for member in (1, 2):
            for family in (0, 1):
                boxes[member, family] = inside(lab, member, lambda member=member, family=family: listen(member, family))

        def passes(sender: int, receiver: int, family: int) -> bool:
            boxes[sender, family].sendto(b"x", (lab.addresses(receiver)[family], 2_646))
            try:
                return boxes[receiver, family].recv(10) == b"x"
            except TimeoutError:
                return False

        def table() -> list[bool]:
            return [passes(1, 2, family) for family in (0, 1)] + [passes(2, 1, family) for family in (0, 1)]

        async def story() -> None:
            assert table() == [True] * 4
            async with lab.one_way([1], [2]):
                assert table() == [False, False, True, True] and lab.dropped() >= 2
            assert table() == [True] * 4
            async with lab.parted([1], [2, 3]):
                assert table() == [False] * 4
            assert table() == [True] * 4

        asyncio.run(story())
        for box in boxes.values():
            box.close()
    assert lab.name not in run(["ip", "netns", "list"])


@pytest.mark.parametrize("family", [0, 1])
def test_a_wire_disorders_what_tcp_puts_right_and_damages_what_it_does_not_see(family: int) -> None:
    needs(Capability.WIRES)
    sent = bytes(range(256)) * 800
    with WireLab(2) as lab:

        def listening() -> socket.socket:
            box = socket.socket((socket.AF_INET, socket.AF_INET6)[family])
            box.bind((lab.addresses(2)[family], 2_646))
            box.listen()
            box.settimeout(20)
            return box

        def connected() -> socket.socket:
            box = socket.socket((socket.AF_INET, socket.AF_INET6)[family])
            box.settimeout(20)
            box.connect((lab.addresses(2)[family], 2_646))
            return box

        def carried() -> bytes:
            """What arrives of `sent` over a connection of its own."""
            here = inside(lab, 1, connected)
            there, _ = server.accept()
            sending = threading.Thread(target=here.sendall, args=(sent,))
            sending.start()
            got = b""
            while len(got) < len(sent):
                got += there.recv(65_536)
            sending.join(20)
            here.close(), there.close()
            return got

        async def story() -> None:
            assert carried() == sent
            async with lab.ruled([(1, 2), (2, 1)], FrameRule(doubled=0.3, late=0.3, late_ms=5, lost=0.02), "disorder"):
                assert carried() == sent
            counts = lab.counts()
            assert min(counts[name] for name in ("doubled", "late", "lost")) > 0 and not counts["slipped"]
            async with lab.ruled([(1, 2)], FrameRule(slipped=0.5), "damage"):
                damaged = carried()
            assert damaged != sent and sorted(damaged) == sorted(sent)  # words changed places, and the kernel took them
            assert lab.counts()["slipped"] and carried() == sent

        server = inside(lab, 2, listening)
        asyncio.run(story())
        server.close()
    assert lab.name not in run(["ip", "netns", "list"]) and not lab.control().exists()
