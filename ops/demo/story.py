"""The main job as a story with real processes: what happens in which order. What it was worth is judged afterwards (judge.py).

three members become a cluster -> copy everything -> clients resolve and register, changes stream -> the leader is SIGKILLed
-> a secondary node is SIGKILLed -> the top-level node too -> one of our members meanwhile -> they return with changes of their
own -> everything is given back -> a node hangs and goes on -> our leader is frozen and goes on -> a member's copy is wiped and
fed anew
-> all members are SIGKILLed at once -> contents are compared -> a region without a node lives here and leaves for one of its own
-> node and leader die in one moment while changes stream
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos.check.history import Operation, parse
from chaos.standin.tally import last_answer_ns
from ops.demo.acts import WHOLE_S_MAX, Acts
from ops.demo.hosting import Hosting
from ops.demo.judge import NS_PER_MS, Hang, History, Kill, Lane, Lookup
from ops.demo.looking import Looking, Rows, sound
from ops.demo.members import HOSTED, HOSTED_PREFIX, HOSTS, NAMES, REGISTRAR, SEATS
from ops.demo.page import Moment
from ops.demo.stage import (
    HOST,
    MANUFACTURERS,
    NATIONAL_TTL_S,
    PROCESSES_OF,
    REGIONS,
    SOURCES,
    TOP,
    TOP_NAMES,
    Stage,
)  # fmt: skip
from replica.model.errors import ZaibeiError

COPY_S_MAX = 90.0
FORMED_S_MAX = 60.0
CALM_S = 3.0
STEADY_S = 6.5
ALONE_S = 2.0  # with a member less while nodes are dead
RETURN_S_MAX = 60.0
EQUAL_S_MAX = 30.0
HANG_S = 1.0  # after the takeover, so that clients meet both
STREAM_S = 1.5
ALONE_S_MAX = 20.0
REGISTERING_END_S_MAX = 20.0
REGISTER_EVERY_MS = 150
NAMES_ASKED = 4_000  # of the manufacturers', drawn by the prober

Tell = Callable[[Moment], None]


@dataclass(slots=True)
class Told:
    """What the story leaves for the judge."""

    moments: list[Moment] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    source_lost: int = 0
    receipted_lost: list[str] = field(default_factory=list)
    digest_equal: bool | None = None
    changes: int = 0
    hangs: list[Hang] = field(default_factory=list)
    broken: str = ""
    ended_ns: int | None = None


class Story:
    """One run.

    Args:
        tell: called with each moment as it happens.
        progress: called with (what, done, total) while a copy is being made.
    """

    def __init__(self, stage: Stage, tell: Tell, progress: Callable[[str, int, int], None]) -> None:
        self.stage, self._tell = stage, tell
        self.told = Told()
        self._began_s = time.monotonic()
        self._look = Looking(stage, progress)
        self.acts = Acts(stage, self._look, self._note)
        self.hosting = Hosting(stage, self._look, self._note, self.acts.zaibei)

    def _note(self, kind: str, text: str, at_ns: int | None = None) -> None:
        moment = Moment(at_ns or time.monotonic_ns(), kind, text)
        self.told.moments.append(moment)
        self._tell(moment)

    # ------------------------------------------------------------------------------------------------------- acts

    def run(self) -> History:
        """Play it. Raises ZaibeiError when the stage itself cannot be set up; everything else is history."""
        self._open()
        try:
            self._play()
        except ZaibeiError as exc:
            self.told.broken = exc.trouble.message
            self._note("fault", f"the story could not go on: {exc.trouble.message}")
            with suppress(ZaibeiError):
                self._look.write_down()
        return self._history()

    def _play(self) -> None:
        self._copy()
        self._calm()
        self.acts.lose_leader()
        self._lose(MANUFACTURERS, "a secondary node burns down")
        self._lose(TOP, "the top-level node too")
        self._lose_member()
        self._return()
        self._hang()
        self.acts.freeze_leader()
        self.acts.wipe()
        self.acts.lose_all()
        self._compare()
        self._end_clients()
        self.hosting.play()
        self._lose_both()
        self._end_registering()

    def _open(self) -> None:
        stage = self.stage
        stage.write()
        self._note("note", f"{stage.records:,} real registrations, routes and documents written for three nodes")
        names = ("enterprise", "recursive", "national", TOP, REGIONS)
        self._began_s = time.monotonic()
        stage.start(NAMES[0])
        started = [stage.start(name, wait=False) for name in names]
        for seat in SEATS[1:]:
            stage.members.join(seat)
        started += [stage.start(seat.name, wait=False) for seat in SEATS[1:]]
        started.append(stage.start(MANUFACTURERS, wait=False))
        started += [stage.start(f"{name}-agent", wait=False) for name in (TOP, REGIONS)]
        for child in started:
            stage.await_ready(child)
        self._note("note", "three nodes, two recursive nodes, an enterprise node and three members in three zones are up")

    def _copy(self) -> None:
        self._look.until_whole(FORMED_S_MAX)
        self._note("act", f"the members are one cluster, {time.monotonic() - self._began_s:.1f} s after the first start")
        rows = self._look.until(COPY_S_MAX, "copied", _all_sound, report=True)
        self._look.until_whole(WHOLE_S_MAX)
        records = sum(row.records for row in rows.values())
        took_s = time.monotonic() - self._began_s
        self._note("act", f"copied to three members and verified: {records:,} records, {took_s:.1f} s after the first start")

    def _calm(self) -> None:
        stage = self.stage
        with (stage.folder / "manufacturers.jsonl").open(encoding="utf-8") as lines:
            base = [json.loads(line) for line in lines]
        step = max(1, len(base) // NAMES_ASKED)
        names = {
            TOP: list(TOP_NAMES.items()),
            MANUFACTURERS: [(line["handle"], line["values"][0]["data"]) for line in base[::step]],
            REGIONS: list(stage.enterprise_names.items()),
        }
        stage.start_client(
            "prober",
            {
                "names": names,
                "history": str(stage.folder / "history.jsonl"),
                "acks": str(stage.folder / "manufacturers-own"),
                "national": [TOP, MANUFACTURERS],
                "seed": 1,
                "host": HOST,
                "members": list(HOSTS),
                "ports": stage.ports,
            },
        )
        stage.start_client(
            "registering",
            {
                "name": REGISTRAR,
                "identity": str(stage.folder / REGISTRAR),
                "roots": stage.members.roots.read_text(encoding="ascii"),
                "addresses": [f"{host}:{stage.ports['registration']}" for host in HOSTS],
                "prefix": HOSTED_PREFIX,
                "history": str(stage.folder / "registrations.jsonl"),
                "pause": str(stage.folder / "registrations.pause"),
                "every_ms": REGISTER_EVERY_MS,
            },
        )
        self._note("note", "clients resolve over UDP, TCP and HTTP, others register, changes stream")
        time.sleep(CALM_S)

    def _lose(self, source: str, words: str) -> None:
        stage = self.stage
        tally = stage.folder / ("manufacturers-own/answered" if source == MANUFACTURERS else f"{source}-answered")
        for name in reversed(PROCESSES_OF[source]):  # the agent first: at the node's death nothing of it is left
            at_ns = stage.children.pop(name).kill()
        self.told.kills.append(Kill(source, at_ns, last_answer_ns(tally)))
        self._note("fault", f"{words}: {source} SIGKILLed", at_ns)
        self._look.until(5.0, "taken over", lambda rows: rows[source].authority == "RESOLUTION")
        self._note(
            "act", f"{source}: resolution taken over, {(time.monotonic_ns() - at_ns) / NS_PER_MS:.0f} ms after the fault at most"
        )
        if source == MANUFACTURERS:
            self._count_source_lost()
        self._sleep_until(at_ns / 1e9 + STEADY_S)
        self._look.remember(source)  # while there is nothing else to do
        self._sleep_until(at_ns / 1e9 + max(STEADY_S, NATIONAL_TTL_S + 2.0))

    @staticmethod
    def _sleep_until(at_s: float) -> None:
        time.sleep(max(0.0, at_s - time.monotonic()))

    def _lose_member(self) -> None:
        """While two nodes are dead and we alone answer: the other two members go on."""
        name = self._look.leader(MANUFACTURERS)
        at_ns = self.acts.kill(name)
        self._note("fault", f"{name}, which leads the takeover, SIGKILLed while we alone answer", at_ns)
        self.stage.start(name, wait=False)
        self.acts.await_back(name, at_ns)
        time.sleep(ALONE_S)

    def _return(self) -> None:
        stage = self.stage
        stage.change_files(TOP, version=2)
        began = [stage.start(name, wait=False) for name in (TOP, f"{TOP}-agent", MANUFACTURERS)]
        for child in began:
            stage.await_ready(child)
        self._note("return", "both nodes are back, with registrations of their own")
        self._look.until(RETURN_S_MAX, "given back", _given_back)
        self._note("return", "everything is given back: the nodes answer again")
        time.sleep(1.0)

    def _hang(self) -> None:
        """Worse than a dead node: connections open and nothing comes. Only a client that hedges is not slow."""
        child = self.stage.children[MANUFACTURERS]
        child.process.send_signal(signal.SIGSTOP)
        at_ns = time.monotonic_ns()
        self._note("fault", "the secondary node hangs (SIGSTOP)", at_ns)
        try:
            self._look.until(5.0, "taken over", lambda rows: rows[MANUFACTURERS].authority == "RESOLUTION")
            self._note(
                "act", f"{MANUFACTURERS}: taken over, {(time.monotonic_ns() - at_ns) / NS_PER_MS:.0f} ms after it hung at most"
            )
            time.sleep(HANG_S)
        finally:
            child.process.send_signal(signal.SIGCONT)
        self.told.hangs.append(Hang(MANUFACTURERS, at_ns, time.monotonic_ns()))
        self._look.until(RETURN_S_MAX, "given back", _given_back)
        self._note("return", "it goes on, and answers again")

    def _end_clients(self) -> None:
        prober = self.stage.children.pop("prober", None)
        if prober is not None:
            self.told.ended_ns = time.monotonic_ns()
            prober.end()

    def _lose_both(self) -> None:
        """Changes stream, node and leader die in one moment: what was receipted must be at each of the other two.

        SIGKILL leaves what reached the kernel; that a receipt waits for the disk itself is shown by the tests' recorder.
        """
        stage = self.stage
        self._paused(False)
        time.sleep(STREAM_S)
        name = self._look.leader(MANUFACTURERS)
        at_ns = self.acts.kill(name)
        stage.children.pop(MANUFACTURERS).kill()
        self._note("fault", f"the node that streams and {name}, which it streams to, SIGKILLed in one moment", at_ns)
        self._look.until(ALONE_S_MAX, "taken over", lambda rows: rows[MANUFACTURERS].authority == "RESOLUTION")
        count, lost = self._lost(self._look.up)
        self._note("act", f"the other two alone: {count:,} receipted registrations looked up at each, {lost} lost")

    def _end_registering(self) -> None:
        """They read everything once more before they end."""
        child = self.stage.children.pop("registering", None)
        if child is None:
            return
        child.process.terminate()
        try:
            self.acts.told.whole = child.process.wait(REGISTERING_END_S_MAX) == 0
        except subprocess.TimeoutExpired:
            child.end()
        told = self.acts.told
        told.history = read_registrations(self.stage.folder / "registrations.jsonl")
        acked = sum(one.ok is True and one.value is not None for one in told.history)
        self._note("act", f"{acked:,} acknowledged registrations of {HOSTED} looked up at the end")

    def _paused(self, paused: bool) -> None:
        for path in (self.stage.folder / "manufacturers-own" / "pause", self.stage.folder / "registrations.pause"):
            if paused:
                path.touch()
            else:
                path.unlink(missing_ok=True)

    def _lost(self, members: Sequence[str] = ()) -> tuple[int, int]:
        """Look all receipted registrations up at these members, or at our addresses together; remember those that are lost."""
        receipted = self._look.receipted()
        lost = self._look.wrong(receipted, members)
        self.told.receipted_lost = sorted({*self.told.receipted_lost, *lost})
        return len(receipted), len(lost)

    def _compare(self) -> None:
        """Stop the changes, then compare what each node's own files say with what each member's copy says, all computed anew."""
        self._paused(True)
        time.sleep(1.0)
        expected = {source: self._look.expected(source) for source in SOURCES}
        until, differing = time.monotonic() + EQUAL_S_MAX, ["nothing was seen"]
        while differing and time.monotonic() < until:
            differing = self._differing(expected)
            time.sleep(0.1)
        if differing:
            self._note("fault", f"contents differ: {'; '.join(differing)}")
        else:
            self._note("return", "nodes and three members hold the same, at equal positions")
        self.told.digest_equal = not differing
        count, lost = self._lost()
        self._note("return", f"{count:,} receipted registrations looked up one by one, {lost} lost")

    def _differing(self, expected: dict[str, tuple[int, str]]) -> list[str]:
        found, differing = self._look.digests(), []
        for group in (*SOURCES, HOSTED):
            members = found.get(group, {})
            if set(members) != set(NAMES):
                differing.append(f"{group} was not seen at {', '.join(sorted(set(NAMES) - set(members)))}")
            elif len(set(members.values())) > 1:
                differing.append(f"{group}: the members differ, {members}")
            elif group in expected and {one[1:] for one in members.values()} != {expected[group]}:
                differing.append(f"{group}: the members hold {members}, its node {expected[group]}")
        return differing

    def _count_source_lost(self) -> None:
        """What the node had told its own clients and we cannot answer: never received by us."""
        unsure = self._look.unreceipted()
        self.told.source_lost = len(self._look.wrong(unsure))
        self._note(
            "note",
            f"{len(unsure)} registrations were without a receipt at the fault, {self.told.source_lost} of them never reached us",
        )

    # ------------------------------------------------------------------------------------------------------- history

    def _history(self) -> History:
        stage, told = self.stage, self.told
        self._end_clients()
        self._end_registering()
        covered = {line["name"]: line["at_ns"] for line in self._look.lines("receipts.jsonl")}
        lookups, late_ms = read_history(stage.folder / "history.jsonl", covered)
        return History(
            lookups=lookups,
            kills=told.kills,
            prober_late_ms=late_ms,
            records=stage.records,
            changes=len(self._look.lines("acks.jsonl")),
            receipted_lost=told.receipted_lost,
            source_lost=told.source_lost,
            digest_equal=told.digest_equal,
            national_ttl_s=NATIONAL_TTL_S,
            hangs=told.hangs,
            broken=told.broken,
            ended_ns=told.ended_ns,
            cluster=self.acts.told,
            hosting=self.hosting.told,
        )


def _all_sound(rows: Rows) -> bool:
    return all(sound(row) for row in rows.values())


def _given_back(rows: Rows) -> bool:
    return _all_sound(rows) and all(row.authority == "SOURCE" for row in rows.values())


def read_registrations(path: Path) -> list[Operation]:
    """Operations of the registering clients; a line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    octets = path.read_bytes()
    return list(parse(octets[: octets.rfind(b"\n") + 1].decode().splitlines()))


def read_history(path: Path, covered: dict[str, int]) -> tuple[list[Lookup], float]:
    """Lookups and the prober's worst lateness, ms.

    Args:
        covered: registered name -> when a receipt covered it; names that are not here were there from the first copy on.
    """
    lookups, late_ms = list[Lookup](), 0.0
    if not path.exists():
        return lookups, late_ms
    octets = path.read_bytes()
    for text in octets[: octets.rfind(b"\n") + 1].splitlines():
        line = json.loads(text)
        if "late_ms" in line:
            late_ms = max(late_ms, line["late_ms"])
            continue
        known = covered.get(line["name"])
        lookups.append(
            Lookup(
                Lane(line["lane"]), line["protocol"], line["source"], line["name"], line["began_ns"], line["ended_ns"],
                line["right"], covered=known is None or known < line["began_ns"], note=line["note"], lied=line["lied"],
                receipt_ms=None if known is None else (line["began_ns"] - known) / NS_PER_MS, absent=line.get("absent", False),
            )
        )  # fmt: skip
    return lookups, late_ms
