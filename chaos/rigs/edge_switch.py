"""A switch of our own: `python -m chaos.rigs.edge_switch LAB PORTS CONTROL SEED` gives each namespace of a lab a TAP device and
carries frames between them, as rules say; for kernels without netem.

It is told what to do over a Unix socket, one JSON line each way: {"wires": [{"from", "to", "rules": […]}]} takes the place of all
rules before, {} asks; the answer is what became of frames so far, summed over all wires. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

from chaos.rigs.frames import FrameRule, Wire, mac, port_of
from replica.model.errors import require

TUNSETIFF, SIOCSIFHWADDR, ARPHRD_ETHER = 0x400454CA, 0x8924, 1
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
FRAME_OCTETS_MAX = 2_048
FRAMES_A_TURN = 64
WAITING_MAX = 100_000  # frames on their way
DEVICE = "eth0"


def tap(space: str, port: int) -> int:
    """A TAP device named eth0 in a namespace; returns its file. Raises OSError."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{space}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"namespace {space} cannot be entered")
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TAP | IFF_NO_PI))
        fcntl.ioctl(file, SIOCSIFHWADDR, struct.pack("16sH6s16x", DEVICE.encode(), ARPHRD_ETHER, mac(port)))
        return file
    finally:
        if libc.setns(home, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "the namespace this process came from cannot be entered again")
        os.close(there)
        os.close(home)


class Switch:
    """Ports numbered from 1."""

    def __init__(self, files: dict[int, int], seed: str) -> None:
        self._files = files
        self._wires = {(a, b): Wire(f"{seed} {a} {b}") for a in files for b in files if a != b}
        self._waiting = 0

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        for port, file in self._files.items():
            loop.add_reader(file, self._readable, port, file)

    def _readable(self, port: int, file: int) -> None:
        for _ in range(FRAMES_A_TURN):
            try:
                frame = os.read(file, FRAME_OCTETS_MAX)
            except OSError:
                return
            to = port_of(frame[:6])
            if to is not None:
                self._carry(port, to, frame)
                continue
            for other in self._files:
                self._carry(port, other, frame)

    def _carry(self, port: int, to: int, frame: bytes) -> None:
        wire = self._wires.get((port, to))
        if wire is None:
            return
        for after_ms, octets in wire.fates(frame, time.monotonic_ns()):
            if after_ms <= 0:
                self._out(to, octets)
            elif self._waiting < WAITING_MAX:
                self._waiting += 1
                asyncio.get_running_loop().call_later(after_ms / 1_000, self._late, to, octets)

    def _late(self, to: int, octets: bytes) -> None:
        self._waiting -= 1
        self._out(to, octets)

    def _out(self, to: int, octets: bytes) -> None:
        try:
            os.write(self._files[to], octets)
        except OSError:
            return  # its queue is full, or its end is down: lost, as on any wire

    def told(self, document: dict[str, Any]) -> dict[str, int]:
        """Take rules, if there are any; returns the counts."""
        if "wires" in document:
            for wire in self._wires.values():
                wire.rules = ()
            for one in document["wires"]:
                wire = self._wires[one["from"], one["to"]]
                wire.rules = tuple(map(FrameRule.read, one["rules"]))
        names = next(iter(self._wires.values())).counted
        return {name: sum(wire.counted[name] for wire in self._wires.values()) for name in names}


async def serve(lab: str, ports: int, control: str, seed: str) -> None:
    require(0 < ports < 1 << 16, "a switch has at least one port")
    switch = Switch({port: tap(f"{lab}n{port}", port) for port in range(1, ports + 1)}, seed)
    switch.start()

    async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(switch.told(json.loads(line))).encode() + b"\n")
        writer.close()

    server = await asyncio.start_unix_server(asked, control)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)  # whoever started us holds the other end of our standard input
    try:
        await ended.wait()
    finally:
        server.close()


if __name__ == "__main__":
    try:
        asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
    finally:
        Path(sys.argv[3]).unlink(missing_ok=True)
