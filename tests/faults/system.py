"""What scenarios and the runner ask of a system of several members: the port, and what both systems behind it share.

A system is a real cluster (cluster.py) or the stand-in register (standin_system.py). Each member is a process with a folder of
its own, a shim for its disk and clock, and links to the others that go through a mesh (or a network of namespaces).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from chaos.check.history import Value
from chaos.faults.edge_door import Door, add_door, mesh_of
from chaos.faults.edge_process import runs
from chaos.faults.edge_shim import Shim, build
from chaos.faults.fault import FaultLog
from chaos.faults.mesh import Mesh
from chaos.rigs.capability import Capability
from chaos.rigs.edge_network import NetLab
from chaos.rigs.edge_wire_lab import WireLab
from ops.admin.values import SourceStatus
from tests.acceptance.world import HOSTS, stable_port

if TYPE_CHECKING:
    from tests.faults.scenario import Load
    from tests.faults.workload import History

ROOT = Path(__file__).resolve().parents[2]
END_S_MAX = 10.0
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told. ok: True done, False certainly without effect, None unknown; saw: `out` means something."""

    ok: bool | None
    out: Value = None
    saw: bool = False


class Register(Protocol):
    """One client of keys that hold growing lists or single values; linearizable. Nothing is raised: not knowing is an answer."""

    async def get(self, key: str) -> Told: ...

    async def append(self, key: str, value: int) -> Told: ...

    async def put(self, key: str, value: Value) -> Told: ...

    async def cas(self, key: str, wanted: Value, value: Value) -> Told: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Seat:
    """One member's place: folder, ports, shim, process."""

    number: int
    data: Path
    zone: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    shim: Shim | None = None
    process: subprocess.Popen[bytes] | None = None
    tree: Path = ROOT  # the program it runs: this tree, or another version's
    said_from: int = 0  # where in its log the words of the running process begin
    life: int = 1  # of the seat: a lost member is replaced by a new one, which sits here

    @property
    def name(self) -> str:
        return f"m{self.number}" if self.life == 1 else f"m{self.number}-{self.life}"

    def pid(self) -> int | None:
        """Of the running process; None when none runs."""
        if self.process is None or self.process.poll() is not None:
            return None
        return self.process.pid


class System:
    """What both systems share: seats, processes, mesh. Subclasses say how a member is started and asked.

    Args:
        folder: of this run.
        members: how many; zones: of each, in order ("" when they do not matter).
        disks: folder of each member's data, where a rig gives it one.
        lab: namespaces instead of the mesh.
    """

    capabilities: frozenset[Capability] = frozenset()
    patterns: Mapping[str, str] = {}  # what kinds of files are called here, for damage
    port_names: tuple[str, ...] = ()
    keeper = 0  # member whose data folder alone holds what no other can give back (the key of a CA); 0: none

    def __init__(
        self,
        folder: Path,
        members: int,
        *,
        zones: Sequence[str] = (),
        disks: dict[int, Path] | None = None,
        lab: NetLab | None = None,
        seed: int = 0,
    ) -> None:
        self.folder, self.lab, self.seed = folder, lab, seed
        self.log = FaultLog()
        self.mesh = Mesh({}, self.log)
        self._doors: dict[int, Door] = {}
        self.seats: dict[int, Seat] = {}
        self.groups: dict[int, Path] = {}  # control group each member's process begins in, if any
        for number in range(1, members + 1):
            data = (disks or {}).get(number, folder) / f"m{number}"
            data.mkdir(parents=True, exist_ok=True)
            shim = Shim(folder / f"shim{number}", self.log) if build() else None
            zone = zones[number - 1] if zones else ""
            ports = {name: stable_port() for name in (*self.port_names, "link", "reach")}
            self.seats[number] = Seat(number, data.resolve(), zone, ports, shim)
        if disks:
            os.sync()  # the folders themselves are nobody's promise

    # ------------------------------------------------------------------------------------------------------------ to be said

    async def start(self) -> None:
        """All members, from empty folders, until they are healthy."""
        raise AssertionError("a system says how it starts")

    def command(self, seat: Seat) -> list[str]:
        raise AssertionError("a system says what it runs")

    async def ready(self, seat: Seat) -> bool:
        """Does this member take part?"""
        raise AssertionError("a system says who is ready")

    async def leader(self) -> int:
        """The member that decides for the keys now. Raises TimeoutError: nobody does."""
        raise AssertionError("a system says who leads")

    def register(self, client: str) -> Register:
        raise AssertionError("a system has clients")

    def other_load(
        self, load: Load, history: History, seed: int
    ) -> Sequence[Callable[[asyncio.Event], Coroutine[None, None, None]]]:
        """What else goes on beside registrations, until the event is set: a source that feeds, somebody who resolves."""
        return ()

    async def amnesiac(self, member: int) -> bool | None:
        """Did it lose its memory and was it refused its vote for that? None: the system does not say."""
        return None

    async def source_at(self, member: int) -> SourceStatus | None:
        """What a member says of the fed source; None: it does not answer."""
        raise AssertionError("this system has no source")

    async def repair(self, member: int) -> bool:
        """What an operator does for a member that refuses to start, as its own message says; False: nothing can be done."""
        return False

    async def read_through(self, member: int) -> dict[str, str]:
        """What an operator does whose disk is under suspicion: have all copies there read through, and fed anew what is
        not sound. Returns what was found of each source; nothing of a system that cannot do it."""
        return {}

    async def mend(self, member: int) -> str:
        """What an operator does for a member that runs and says that it needs a hand; "": nothing is to be done."""
        return ""

    async def grow(self) -> Awaitable[None]:
        """Ask a new member in; the result ends when it takes part."""
        raise AssertionError("this system's members do not change")

    async def shrink(self, member: int) -> Awaitable[None]:
        """Ask one to go; the result ends when it is gone, with its seat."""
        raise AssertionError("this system's members do not change")

    async def source_dies(self) -> None:
        """The node of the fed source dies; returns when we answer for it."""
        raise AssertionError("this system has no source")

    async def source_returns(self) -> None:
        raise AssertionError("this system has no source")

    # ----------------------------------------------------------------------------------------------------------------- network

    async def open_links(self) -> None:
        """Doors and links, unless the members have a network of their own."""
        if self.lab is None:
            self._doors = await mesh_of(self._called(), self.pids, self.seed, self.mesh)

    async def open_door(self, number: int) -> None:
        """Of a member that comes later."""
        if self.lab is None:
            await add_door(self._doors, self._called(), number, self.pids, self.seed, self.mesh)

    async def close_door(self, number: int) -> None:
        """Of a member that is gone."""
        if (door := self._doors.pop(number, None)) is not None:
            await door.stop()

    def _called(self) -> dict[int, tuple[list[tuple[str, int]], list[tuple[str, int]]]]:
        return {
            number: ([(host, seat.ports["reach"]) for host in HOSTS], [(host, seat.ports["link"]) for host in HOSTS])
            for number, seat in self.seats.items()
        }

    @property
    def home(self) -> int | None:
        """Where the runner, its clients and the node of the fed source live: a place of their own beside the members, with a line
        of its own (WireLab); None: where members live too."""
        return max(self.lab.members) + 1 if isinstance(self.lab, WireLab) else None

    def hosts(self, number: int) -> tuple[str, ...]:
        """Addresses at which others and clients find a member."""
        return HOSTS if self.lab is None else self.lab.addresses(number)

    def reach(self, number: int) -> list[tuple[str, int]]:
        """What a member tells others."""
        port = self.seats[number].ports["reach" if self.lab is None else "link"]
        return [(host, port) for host in self.hosts(number)]

    # --------------------------------------------------------------------------------------------------------------- processes

    def pids(self) -> dict[int, int]:
        return {number: pid for number, seat in self.seats.items() if (pid := seat.pid()) is not None}

    def launch(self, number: int) -> None:
        """Start a member's process and do not wait; nothing is done when it runs."""
        seat = self.seats[number]
        if seat.pid() is not None:
            return
        argv = self.command(seat)
        if self.lab is not None:
            argv = self.lab.argv(number, argv)
        if (group := self.groups.get(number)) is not None:
            argv = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *argv]
        shim = seat.shim.env() if seat.shim else {}
        with (self.folder / f"m{number}.log").open("ab") as said:
            seat.said_from = said.tell()
            seat.process = subprocess.Popen(
                argv, cwd=seat.tree, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={**os.environ, **shim}
            )

    async def stop_member(self, number: int) -> int | None:
        """Stop one in order; returns its exit code, None when it did not run."""
        seat = self.seats[number]
        if seat.process is None or seat.pid() is None:
            return None
        seat.process.send_signal(signal.SIGTERM)
        await self.until(f"member {number} stops", lambda: asyncio.sleep(0, seat.pid() is None), END_S_MAX)
        return seat.process.poll()

    async def up(self, number: int, seconds: float) -> None:
        """Raises TimeoutError: it is not ready by then."""
        await self.until(f"member {number} is ready", lambda: self._ready_and_running(number), seconds)

    async def _ready_and_running(self, number: int) -> bool:
        return self.seats[number].pid() is not None and await self.ready(self.seats[number])

    async def until(self, what: str, look: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Raises TimeoutError with what never was."""
        end = time.monotonic() + seconds
        while not await look():
            if time.monotonic() > end:
                raise TimeoutError(f"never within {seconds:.0f} s: {what}; {self.said()}")
            await asyncio.sleep(LOOK_EVERY_S)

    def said_by(self, number: int) -> str:
        """All that a member's process said since it was launched last."""
        path = self.folder / f"m{number}.log"
        return path.read_bytes()[self.seats[number].said_from :].decode("utf-8", "replace") if path.exists() else ""

    def said(self) -> str:
        """The last words of each member."""
        found = []
        for number in self.seats:
            path = self.folder / f"m{number}.log"
            text = path.read_text("utf-8", "replace")[-300:].strip() if path.exists() else ""
            found.append(f"m{number}{'' if number in self.pids() else ' (down)'}: {text}")
        return " | ".join(found)

    async def close(self) -> None:
        """End everything that was started, whatever state it is in."""
        for seat in self.seats.values():
            if seat.process is not None and seat.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(seat.process.pid, signal.SIGCONT)
                seat.process.kill()
            if seat.process is not None:
                seat.process.wait()
                if seat.process.poll() is not None and runs(seat.process.pid):
                    raise AssertionError(f"process {seat.process.pid} is still there")
        for door in self._doors.values():
            await door.stop()
        await self.mesh.stop()


PYTHON = sys.executable
