"""Runs scenarios on real processes: `python -m tests.faults.run [--only N] [--root] [--system standin|cluster]`.

Phases: load under faults, heal all, wait until all take part, final reads, judge. One line a scenario; the last line is
`N passed, N failed, N inconclusive`. A run that could not be judged is played again, at most twice; then it is inconclusive
(exit 11), and where CI=true that fails (exit 1). Scenarios of one setting share a system, each with keys of its own, as long as
they pass.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

import click

from chaos.check.history import Op, format_line
from chaos.check.judge import judge
from chaos.check.verdict import Verdict, worst
from chaos.faults.fault import FaultState
from chaos.rigs.capability import Capability, Probe
from chaos.rigs.edge_network import NetLab
from chaos.rigs.edge_probe import probe
from chaos.rigs.edge_wire_lab import WireLab
from tests.faults import scenarios
from tests.faults.acts import Stage
from tests.faults.edge_evidence import Evidence, Left
from tests.faults.evidence import MINUTES_MAX, command_of, name_of
from tests.faults.house import House, Lateness, load_of_machine, setting_of
from tests.faults.scenario import Invariant, Layer, Scenario
from tests.faults.system import PYTHON, ROOT, System
from tests.faults.workload import Client, History, keys_of, read_finally

CI = os.environ.get("CI", "").lower() == "true"
WARM_S = 1.0  # load before the first fault
AFTER_S = 1.0  # load after everybody takes part again
ENOUGH_S_MAX = 15.0  # longer, until there are as many acknowledged writes as the scenario needs
SCENARIO_S_MAX = 300.0
START_S_MAX = 180.0
LONG_TIMES = 5  # rounds of all steps in a long run
REPEATS_MAX = 2  # of a run that could not be judged; a failure is never repeated
EXIT_STOPPED, EXIT_UNKNOWN = 143, 11
END_S_MAX = 30.0  # of a second runner that is stopped
OF_THE_SYSTEM = (Capability.FEED, Capability.MEMBERSHIP, Capability.AMNESIA, Capability.LEADER)


@dataclass(slots=True)
class Outcome:
    """What became of one scenario. verdict: pass, fail or unknown (inconclusive)."""

    scenario: Scenario
    verdict: Verdict
    why: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
    folder: Path | None = None  # of its history and fault log; None: not run

    def line(self) -> str:
        word = {Verdict.PASS: "pass", Verdict.FAIL: "FAIL", Verdict.UNKNOWN: "inconclusive"}[self.verdict]
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        why = "".join(f"\n      {sentence}" for sentence in self.why)
        return f"{word:<13}{self.scenario.number:>3} {self.scenario.story} [{self.scenario.layer}]: {figures or 'not run'}{why}"


def system_of(name: str) -> type[System]:
    """The system under test; "standin:RULE" with that rule turned off, "cluster:BUG" with that bug planted in all members."""
    if name.startswith("standin"):
        from tests.faults.standin_system import StandinSystem

        rule = name.partition(":")[2]
        return type("Broken", (StandinSystem,), {"broken": rule}) if rule else StandinSystem
    from tests.faults.cluster import Cluster

    bug = name.partition(":")[2]
    return type("Planted", (Cluster,), {"planted": bug}) if bug else Cluster


def all_scenarios() -> list[Scenario]:
    """One a file of scenarios/, in their order."""
    names = sorted(found.name for found in pkgutil.iter_modules(scenarios.__path__))
    return [importlib.import_module(f"tests.faults.scenarios.{name}").SCENARIO for name in names]


def missing(scenario: Scenario, kind: type[System]) -> list[str]:
    """Capabilities that are not there, in words."""
    found = []
    for capability in sorted(scenario.needs):
        if capability in kind.capabilities:
            continue
        if capability in OF_THE_SYSTEM:
            found.append(Probe(capability, "the system under test does not have it").missing())
        elif capability is Capability.VERSIONS:
            if not os.environ.get("FAULTS_OLD_TREE"):
                found.append(Probe(capability, "no second tree was named").missing())
        elif not (told := probe(capability)).there:
            found.append(told.missing())
    return found


# ----------------------------------------------------------------------------------------------------------------- one run


class Run:
    """One scenario in a house. Its keys carry its number, so that it finds none of another one's."""

    def __init__(self, scenario: Scenario, house: House, folder: Path, seed: int) -> None:
        self.scenario, self.folder, self.seed = scenario, folder, seed
        self._house, self._load = house, replace(scenario.load, tag=f"-s{scenario.number}")
        self.history = History()
        self.outcome = Outcome(scenario, Verdict.UNKNOWN, folder=folder)
        self._late = Lateness()
        self._began_events = 0

    async def go(self, system: System) -> Outcome:
        """Whatever goes wrong in the machinery is inconclusive; what goes wrong in the system is a failure."""
        self.folder.mkdir(parents=True, exist_ok=True)
        began_s, self._began_events = time.monotonic(), len(system.log.events)
        house = self._house
        stage = Stage(system, Random(self.seed), self.folder, house.disks, house.limits, history=self.history)
        try:
            async with asyncio.timeout(SCENARIO_S_MAX), self._late.measured():
                await self._play(stage)
        except (TimeoutError, Exception) as exc:  # noqa: BLE001 - the machinery's own trouble is told, and is no verdict
            self.outcome.verdict = Verdict.FAIL if stage.unmet and not self._late.often else Verdict.UNKNOWN
            self.outcome.why += [*stage.unmet, f"{type(exc).__name__}: {str(exc)[:1500]}"]
        self.outcome.figures |= {
            "runner late": self._late.line(), "load": load_of_machine(), "took s": round(time.monotonic() - began_s, 1),
        }  # fmt: skip
        (self.folder / "history.jsonl").write_text("".join(format_line(one) + "\n" for one in self.history.operations))
        return self.outcome

    async def _play(self, stage: Stage) -> None:
        system, scenario = stage.system, self.scenario
        stop = asyncio.Event()
        clients = [f"c{number}" for number in range(scenario.load.clients)]
        registers = {name: system.register(name) for name in (*clients, "final")}
        began_ns = time.monotonic_ns()
        tasks = [
            asyncio.create_task(Client(name, registers[name], self._load, self.history, self.seed).run(stop)) for name in clients
        ]
        tasks += [asyncio.create_task(work(stop)) for work in system.other_load(self._load, self.history, self.seed)]
        await asyncio.sleep(WARM_S)
        try:
            healed_ns = await self._faults(stage)
            await self._all_take_part(stage, healed_ns)
            await self._enough()
        finally:
            ended_ns = time.monotonic_ns()
            stop.set()
            crashed = [one for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, BaseException)]
        if crashed:
            stage.unsure.append(f"a client crashed: {crashed[0]!r}")
        unread = await read_finally(registers["final"], keys_of(self._load), self.history)
        for register in registers.values():
            await register.close()
        if unread:
            stage.unmet.append(f"never readable again: {', '.join(unread)}")
        self._write_log(stage)
        self._judge(stage, began_ns, ended_ns)

    async def _faults(self, stage: Stage) -> int:
        """Each step in turn, when all take part again: a majority that is still starting is no fault of the system's.

        Returns:
            When the last one began to heal.
        """
        healed_ns = time.monotonic_ns()
        for place, step in enumerate(self.scenario.steps):
            if place:
                await self._all_take_part(stage, healed_ns)
            if stage.unmet:  # it has failed: what comes next would find a system that is broken already
                break
            await asyncio.sleep(step.after_s)
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(step.act.on(stage))
                await asyncio.sleep(step.for_s)
                healed_ns = time.monotonic_ns()
        return healed_ns

    async def _all_take_part(self, stage: Stage, healed_ns: int) -> None:
        stage.system.mesh.heal()
        budget_s = self.scenario.budgets.heal_s_max
        try:
            for number in stage.system.seats:
                left_s = budget_s - (time.monotonic_ns() - healed_ns) / 1e9
                await self._takes_part(stage, number, max(0.1, left_s))
        except TimeoutError as exc:
            (stage.unsure if self._late.often else stage.unmet).append(str(exc))
        took_ms = (time.monotonic_ns() - healed_ns) // 1_000_000
        self.outcome.figures["healed ms"] = max(took_ms, int(str(self.outcome.figures.get("healed ms", 0))))

    async def _enough(self) -> None:
        await asyncio.sleep(AFTER_S)
        for _ in range(int(ENOUGH_S_MAX / AFTER_S)):
            if len(self.history.acked()) >= self.scenario.budgets.acked_min:
                return
            await asyncio.sleep(AFTER_S)

    async def _takes_part(self, stage: Stage, number: int, seconds: float) -> None:
        """Raises TimeoutError. A member that ended again after its start is repaired once, as an operator would, and one that
        asks for a hand while it runs is given it."""

        async def settled() -> bool:
            seat = stage.system.seats[number]
            if seat.pid() is None or await stage.system.ready(seat):
                return True
            if mended := await stage.system.mend(number):
                stage.facts[f"mended {number}"] = mended
            return False

        await stage.system.until(f"member {number} takes part", settled, seconds)
        if stage.system.seats[number].pid() is None:
            stage.facts[f"repaired {number}"] = await stage.system.repair(number)
            await stage.system.up(number, seconds)

    def _write_log(self, stage: Stage) -> None:
        events = [asdict(one) for one in stage.system.log.events[self._began_events :]]
        document = {"scenario": self.scenario.number, "seed": self.seed, "faults": events, "facts": {**stage.facts}}
        (self.folder / "faults.json").write_text(json.dumps(document, indent=1, default=str))

    def _judge(self, stage: Stage, began_ns: int, ended_ns: int) -> None:
        outcome, budgets, history = self.outcome, self.scenario.budgets, self.history
        checks = {str(one) for one in self.scenario.invariants}
        findings = [one for one in judge(history.operations) if one.check in checks]
        acked, operations = history.acked(), history.operations
        pause_ms = history.longest_pause_ms(began_ns, ended_ns)
        unknown = sum(one.ok is None and one.op is not Op.RESOLVE for one in operations)
        outcome.figures = {
            "operations": len(operations), "acked": len(acked), "unknown": unknown, "longest pause ms": round(pause_ms),
            **outcome.figures, **stage.facts,
        }  # fmt: skip
        if history.asked:
            outcome.figures["names unanswered"] = f"{len(history.unanswered)} of {history.asked}"
        verdicts = [one.verdict for one in findings]
        if Invariant.ANSWERED in self.scenario.invariants and history.unanswered:
            verdicts.append(Verdict.FAIL)
            outcome.why.append(f"{len(history.unanswered)} names were answered by no member: {history.unanswered[:3]}")
        outcome.why += [str(one) for one in findings if one.verdict is not Verdict.PASS]
        if stage.unmet:
            verdicts.append(Verdict.FAIL)
            outcome.why += stage.unmet
        if pause_ms > budgets.pause_ms_max:
            verdicts.append(Verdict.UNKNOWN if self._late.often else Verdict.FAIL)
            outcome.why.append(f"no write was acknowledged for {pause_ms:.0f} ms, allowed {budgets.pause_ms_max:.0f}")
        if budgets.answer_ms_max:
            self._judge_answers(verdicts, budgets.answer_ms_max)
        if len(acked) < budgets.acked_min:
            verdicts.append(Verdict.UNKNOWN)
            outcome.why.append(f"only {len(acked)} acknowledged writes, {budgets.acked_min} are needed to say anything")
        stuck = [event for event in stage.system.log.events[self._began_events :] if event.what is FaultState.STUCK]
        if stuck or stage.unsure:
            verdicts.append(Verdict.UNKNOWN)
            outcome.why += [f"fault {event.fault} got stuck: {event.detail}" for event in stuck] + stage.unsure
        outcome.verdict = worst(verdicts)

    def _judge_answers(self, verdicts: list[Verdict], allowed_ms: float) -> None:
        """What a fault must not slow: nobody asked is inconclusive."""
        slowest = max(self.history.answers_p99_ms().values(), default=None)
        self.outcome.figures["answers p99 ms"] = None if slowest is None else round(slowest)
        if slowest is None or slowest > allowed_ms:
            verdicts.append(Verdict.UNKNOWN if slowest is None or self._late.often else Verdict.FAIL)
            self.outcome.why.append(f"99 of 100 answers of a member took up to {slowest or 0:.0f} ms, allowed {allowed_ms:.0f}")


def run_one(scenario: Scenario, system: str, folder: Path, seed: int) -> Outcome:
    """Run a scenario in a system of its own."""
    [outcome] = run_all([scenario], system, folder, seed)
    return outcome


def run_all(
    chosen: Sequence[Scenario],
    system: str,
    folder: Path,
    seed: int,
    lab: NetLab | None = None,
    report: Callable[[Outcome], None] = lambda _outcome: None,
) -> list[Outcome]:
    """Run scenarios where their capabilities are; inconclusive, with what is missing, where they are not."""
    kind, found = system_of(system), list[Outcome]()

    def told(outcome: Outcome) -> None:
        found.append(outcome)
        report(outcome)

    able = []
    for scenario in chosen:
        if lacking := missing(scenario, kind):
            told(Outcome(scenario, Verdict.UNKNOWN, lacking))
        else:
            able.append(scenario)
    for setting in dict.fromkeys(map(setting_of, able)):
        these = [one for one in able if setting_of(one) == setting]
        if setting.lab and lab is None:
            _in_lab(these, system, folder, seed, told)
        else:
            asyncio.run(_played(these, kind, folder, seed, lab, told))
    return found


async def _played(
    chosen: Sequence[Scenario], kind: type[System], folder: Path, seed: int, lab: NetLab | None, told: Callable[[Outcome], None]
) -> None:
    """All of one setting, in one house as long as they pass; what could not be judged is played again in a new one."""
    house = House(kind, setting_of(chosen[0]), folder, seed, lab)
    try:
        for scenario in chosen:
            unsure = list[str]()
            for turn in range(1 + REPEATS_MAX):
                house, outcome = await _one(scenario, kind, folder, seed, lab, house)
                if outcome.verdict is not Verdict.UNKNOWN or turn == REPEATS_MAX:
                    break
                unsure += [f"run {turn + 1} could not be judged: {why}" for why in outcome.why]
            outcome.why += unsure
            told(outcome)
    finally:
        await house.close()


async def _one(
    scenario: Scenario, kind: type[System], folder: Path, seed: int, lab: NetLab | None, house: House
) -> tuple[House, Outcome]:
    """One run in the house that stands, or in a new one; only after a pass it goes on standing."""
    system = house.system
    if system is None:
        house = House(kind, setting_of(scenario), fresh(folder, "system"), seed, lab)
        try:
            async with asyncio.timeout(START_S_MAX):
                system = await house.open()
        except Exception as exc:  # noqa: BLE001 - told, and no verdict on what was to be played in it
            await house.close()
            why = f"the system did not start: {type(exc).__name__}: {str(exc)[:1500]}"
            return house, Outcome(scenario, Verdict.UNKNOWN, [why])
    outcome = await Run(scenario, house, fresh(folder, f"{scenario.number:02}-{scenario.layer}"), seed).go(system)
    if house.started_s:
        outcome.figures["started in s"] = round(house.started_s, 1)
        house.started_s = 0
    if outcome.verdict is not Verdict.PASS:
        await house.close()
    return house, outcome


def _in_lab(chosen: Sequence[Scenario], system: str, folder: Path, seed: int, told: Callable[[Outcome], None]) -> None:
    """A second runner lives in a namespace beside the members, so that its clients reach them; it says how it went in a file."""
    members = chosen[0].members
    with (WireLab if chosen[0].wires else NetLab)(members + 1) as lab:
        inside = fresh(folder, "lab")
        inside.mkdir(parents=True)
        says = inside / "outcomes.json"
        only = [word for one in chosen for word in ("--only", str(one.number))]
        argv = [
            PYTHON, "-m", "tests.faults.run", *only, "--root", "--system", system, "--seed", str(seed),
            "--keep", str(inside), "--lab", f"{lab.name}:{lab.net}:{members}:{lab.kind}", "--told", str(says),
        ]  # fmt: skip
        with (inside / "runner.log").open("wb") as said:
            process = lab.start(members + 1, argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            try:
                process.wait((SCENARIO_S_MAX + START_S_MAX) * len(chosen))
            finally:
                if process.poll() is None:
                    process.terminate()  # it ends its members, which nobody else would
                    try:
                        process.wait(END_S_MAX)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
    found = json.loads(says.read_text()) if says.exists() else []
    for place, scenario in enumerate(chosen):
        if place < len(found):
            one = found[place]
            there = Path(one["folder"]) if one["folder"] else None
            told(Outcome(scenario, Verdict(one["verdict"]), one["why"], one["figures"], there))
        else:
            told(Outcome(scenario, Verdict.UNKNOWN, [f"the inner runner failed: {(inside / 'runner.log').read_text()[-800:]}"]))


# ----------------------------------------------------------------------------------------------------------------- command


def fresh(folder: Path, name: str) -> Path:
    """A folder that is not there yet: data of an earlier run would be taken for this one's."""
    return next(path for number in range(1, 10_000) if not (path := folder / f"{name}-{number}").exists())


def turned(verdict: Verdict) -> Verdict:
    """For a planted fault: found is passed, not found is failed, undecided stays so."""
    return {Verdict.FAIL: Verdict.PASS, Verdict.PASS: Verdict.FAIL}.get(verdict, verdict)


def listed(scenario: Scenario) -> dict[str, object]:
    """What whoever lists drills says of it (ops/drills/edge_rigs.py)."""
    return {
        "name": name_of(scenario), "number": scenario.number, "story": scenario.story, "minutes_max": MINUTES_MAX,
        "command": f'{command_of(scenario)} ARGS="--only {scenario.number}"',
        "planted": next(iter(scenario.reds()), ""),
    }  # fmt: skip


@click.command(help=__doc__)
@click.option("--only", multiple=True, type=int, help="Number of a scenario; may be given again.")
@click.option("--root", is_flag=True, help="The scenarios that need root, instead of the others.")
@click.option("--system", default="cluster", show_default=True, help="cluster, cluster:BUG, standin, standin:RULE.")
@click.option("--red", is_flag=True, help="Each against what it must find, a rule off or a bug planted: passed is who fails.")
@click.option("--seed", default=1, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for histories and logs; without it they are removed.")
@click.option("--long", is_flag=True, help=f"Each scenario's steps {LONG_TIMES} times over.")
@click.option("--evidence", type=click.Path(path_type=Path), help="Folder of signed bundles: one more a scenario.")
@click.option("--list", "listing", is_flag=True, help="Say as JSON what there is, and play nothing.")
@click.option("--lab", hidden=True)
@click.option("--told", hidden=True, type=click.Path(path_type=Path))
def main(
    only: tuple[int, ...],
    root: bool,
    system: str,
    red: bool,
    seed: int,
    keep: Path | None,
    long: bool,
    evidence: Path | None,
    listing: bool,
    lab: str | None,
    told: Path | None,
) -> None:
    """Run, print, count."""
    if listing:
        print(json.dumps([listed(one) for one in all_scenarios()]))
        return
    layer = Layer.ROOT if root else Layer.LOOPBACK
    chosen = [one for one in all_scenarios() if one.layer is layer and (not only or one.number in only)]
    if long:
        chosen = [replace(one, steps=one.steps * LONG_TIMES) for one in chosen]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))  # so that everything is healed and ended
    if lab is not None and told is not None and keep is not None:
        name, net, members, kind = lab.split(":")
        inside = [one for one in chosen if one.lab and one.wires is (kind == WireLab.kind)]
        attached = (WireLab if kind == WireLab.kind else NetLab).attached(name, int(net), int(members))
        found = run_all(inside, system, keep, seed, attached)
        rows = [
            {"verdict": one.verdict, "why": one.why, "figures": one.figures, "folder": str(one.folder or "")} for one in found
        ]
        told.write_text(json.dumps(rows, default=str))
        return
    began_s, counts = time.monotonic(), dict.fromkeys(Verdict, 0)
    kept = Evidence(evidence, seed) if evidence is not None else None

    def report(outcome: Outcome, of: str = system) -> None:
        print(outcome.line() + (f"\n      {of}" if red else ""), flush=True)
        if kept is not None:
            left = Left(outcome.verdict, outcome.why, outcome.figures, outcome.folder)
            kept.keep(outcome.scenario, of, left, "; long: its steps several times over" if long else "")
        counts[turned(outcome.verdict) if red else outcome.verdict] += 1

    with tempfile.TemporaryDirectory(prefix="zaibei-faults-run-") as spare:
        folder = (keep or Path(spare)).resolve()
        if red:
            for scenario in chosen:
                for of in scenario.reds():
                    run_all([scenario], of, folder, seed, report=partial(report, of=of))
        else:
            run_all(chosen, system, folder, seed, report=report)
    print(f"took {time.monotonic() - began_s:.0f} s, load {load_of_machine()} a core")
    if counts[Verdict.UNKNOWN] and CI:
        print("what is inconclusive fails here, because CI=true")
    print(f"{counts[Verdict.PASS]} passed, {counts[Verdict.FAIL]} failed, {counts[Verdict.UNKNOWN]} inconclusive")
    if counts[Verdict.FAIL] or (CI and counts[Verdict.UNKNOWN]) or not any(counts.values()):
        sys.exit(1)
    sys.exit(EXIT_UNKNOWN if counts[Verdict.UNKNOWN] else 0)


if __name__ == "__main__":
    main()
