"""Stages of a cluster: a thousand sleeping groups and forty busy ones on three members, and the core under its simulator."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from ops.bench.bench import Bench
from ops.bench.edge_groups import GroupsConfig
from ops.bench.edge_member import free_ports
from ops.bench.edge_process import ROOT, Child, cpu_s, rss_mb
from ops.bench.table import Row, row
from replica.model.edge_identity import ensure_identity

MEMBERS = 3
IDLE_TARGET = 3.0  # % of a core
BUSY_GROUPS, BUSY_A_SECOND = 40, 10.0  # each
STANDS_S_MAX = 120.0
MESSAGES_TARGET, SEEDS_TARGET = 25_000, 300
SOAK_S_MAX = 900.0


class Members:
    """Three members of many groups."""

    def __init__(self, folder: Path, groups: int, held: ExitStack) -> None:
        self.folder, self.groups = folder, groups
        for number in range(1, MEMBERS + 1):
            ensure_identity(folder / f"m{number}", f"m{number}")
        ports = free_ports(MEMBERS)
        self.children: list[Child] = []
        for number in range(1, MEMBERS + 1):
            config = GroupsConfig(folder=str(folder), number=number, ports=ports, groups=groups)
            path = folder / f"groups-{number}.json"
            path.write_text(json.dumps({name: getattr(config, name) for name in config.__struct_fields__}))
            self.children.append(held.enter_context(Child(["-m", "ops.bench.edge_groups", str(path)], folder / "stderr")))
        for child in self.children:
            child.say()

    def all(self, order: str, limit_s: float = 60.0) -> list[dict[str, Any]]:
        """One order for all members at once; their answers."""
        for child in self.children:
            child.tell(order)
        return [child.say(limit_s) for child in self.children]

    def until(self, what: str, reached: Callable[[list[dict[str, Any]]], bool]) -> float:
        """Seconds. Raises RuntimeError: it did not come true in time."""
        began = time.monotonic()
        while not reached(standing := self.all("standing")):
            if time.monotonic() - began > STANDS_S_MAX:
                raise RuntimeError(f"not within {STANDS_S_MAX:.0f} s: {what}: {standing}")
            time.sleep(0.25)
        return time.monotonic() - began

    def led(self) -> None:
        """Wait until every group has a leader whom all know."""
        self.until(
            "every group is led",
            lambda told: sum(one["led"] for one in told) == self.groups and all(one["known"] == self.groups for one in told),
        )

    def asleep(self) -> None:
        self.until("all groups sleep", lambda told: all(one["asleep"] == self.groups for one in told))

    def idle_percent(self, seconds: float) -> list[float]:
        """Share of a core that each member takes while nothing is asked of it."""
        before = [cpu_s([child.pid]) for child in self.children]
        time.sleep(seconds)
        return [(cpu_s([child.pid]) - was) / seconds * 100 for child, was in zip(self.children, before, strict=True)]

    def open_files(self) -> int:
        """Of the member that has most open."""
        return max(len(list(Path(f"/proc/{child.pid}/fd").iterdir())) for child in self.children)


def groups(bench: Bench) -> list[Row]:
    """Sleeping groups, and one alone for comparison; then busy ones."""
    count, seconds = bench.scale.groups, bench.scale.seconds * 3
    rows: list[Row] = []
    alone, _ = _asleep(bench, 1, seconds)
    many, note = _asleep(bench, count, seconds)
    more = [most - median(alone) for most in many]
    rows += [
        row("16", "three members with one sleeping group: idle", alone, "% of a core", note="ticks, links and their beats"),
        row("16", f"{count:,} sleeping groups instead of one", more, "% of a core", target=IDLE_TARGET, fewer=True,
            note=f"the member that takes most; {median(many):.1f} % in all; {note}"),
    ]  # fmt: skip
    with bench.room() as room, ExitStack() as held:
        members = Members(room, BUSY_GROUPS, held)
        members.led()
        bench.tell(f"{BUSY_GROUPS} busy groups for {seconds:.0f} s")
        before = [cpu_s([child.pid]) for child in members.children]
        told = members.all(f"busy {BUSY_GROUPS} {BUSY_A_SECOND} {seconds}", seconds + 60)
        cpu = max(cpu_s([child.pid]) - was for child, was in zip(members.children, before, strict=True)) / seconds * 100
        committed = sum(one["committed"] for one in told)
        rows.append(
            row("16", f"{BUSY_GROUPS} busy groups on three members: commit p99", [max(one["p99_ms"] for one in told)], "ms",
                note=f"{committed / seconds:,.0f} commits/s of 1 KB, open loop; {sum(one['failed'] for one in told)} failed; "
                f"{cpu:.0f} % of a core at most"),
        )  # fmt: skip
    return rows


def _asleep(bench: Bench, count: int, seconds: float) -> tuple[list[float], str]:
    """Share of a core that the busiest of three members takes while all its groups sleep, run by run; and what else was seen."""
    with bench.room() as room, ExitStack() as held:
        bench.tell(f"three members of {count:,} groups: they elect and fall asleep")
        members = Members(room, count, held)
        members.led()
        members.asleep()
        bench.tell(f"{count:,} sleeping groups for {seconds:.0f} s, {bench.scale.runs} times")
        idle = [max(members.idle_percent(seconds)) for _ in range(bench.scale.runs)]
        rss = max(rss_mb([child.pid]) for child in members.children)
        note = "groups over a machine that counts: the cost of consensus, without stores"
        return idle, f"{note}; RSS {rss:.0f} MB, {members.open_files()} open files"


def core(bench: Bench) -> list[Row]:
    """The consensus core alone: whole simulated clusters under faults, all invariants checked after every step."""
    told = {}
    for processes in (1, 0):
        bench.tell(f"simulated clusters, {processes or 'all'} process(es)")
        argv = [sys.executable, "-m", "tests.simulation.raft.soak", "--seeds", str(bench.scale.seeds), "--start", "1"]
        argv += ["--processes", str(processes)] if processes else []
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=SOAK_S_MAX, check=False)
        took = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = re.search(r"(\d+) messages of cores \((\d+)/s\)", done.stdout)
        if done.returncode or found is None:
            raise RuntimeError(f"the simulator failed:\n{done.stdout[-1_500:]}\n{done.stderr[-500:]}")
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        told[processes] = (int(found[2]), int(found[1]) / cpu, bench.scale.seeds / took * 60)
    return [
        row("17", "core alone, simulated clusters with all invariants checked", [told[1][0]], "messages/s",
            target=MESSAGES_TARGET, note=f"one process; {told[1][1]:,.0f} for a CPU second, the world around the cores included"),
        row("17", "simulated clusters under faults, on all cores", [told[0][2]], "seeds/min", target=SEEDS_TARGET,
            note=f"{bench.scale.seeds} seeds"),
    ]  # fmt: skip
