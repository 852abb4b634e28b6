"""The main job as a story with real processes: what happens in which order. What it was worth is judged afterwards (judge.py).

copy everything -> clients resolve, changes stream -> a secondary is SIGKILLed -> the top-level node too -> our own member
-> they return with changes of their own -> everything is given back -> a node hangs and goes on -> contents are compared
-> node and member die in one moment while changes stream
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.standin.registry import read_file
from chaos.standin.tally import last_answer_ns
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Server
from ops.admin.edge_client import AdminClient
from ops.admin.values import SourceStatus
from ops.demo.judge import NS_PER_MS, Hang, History, Kill, Lane, Lookup
from ops.demo.page import Moment
from ops.demo.stage import (
    HOST,
    MANUFACTURERS,
    NATIONAL_TTL_S,
    PREFIX_OF,
    PROCESSES_OF,
    REGIONS,
    SOURCES,
    TOP,
    TOP_NAMES,
    Stage,
)  # fmt: skip
from replica import native
from replica.agent.mapping import Naming
from replica.model.batch import OP_PUT
from replica.model.errors import Code, ZaibeiError

COPY_S_MAX = 60.0
CALM_S = 3.0
NATIONAL_S_MAX = NATIONAL_TTL_S + 6.0
STEADY_S = 6.5
RETURN_S_MAX = 60.0
EQUAL_S_MAX = 30.0
POLL_S = 0.1
HANG_S = 1.0  # after the takeover, so that clients meet both
STREAM_S = 1.5
ALONE_S_MAX = 20.0
NAMES_ASKED = 4_000  # of the manufacturers', drawn by the prober
CHECKS_AT_ONCE = 32

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
        self.stage, self._tell, self._progress = stage, tell, progress
        self.told = Told()
        self._began_s = time.monotonic()
        self._admin = AdminClient(stage.folder / "member-data" / "admin.sock")

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
        return self._history()

    def _play(self) -> None:
        self._copy()
        self._calm()
        self._lose(MANUFACTURERS, "a secondary node burns down")
        self._lose(TOP, "the top-level node too")
        self._lose_member()
        self._return()
        self._hang()
        self._compare()
        self._end_clients()
        self._lose_both()

    def _open(self) -> None:
        stage = self.stage
        stage.write()
        self._note("note", f"{stage.records:,} real registrations, routes and documents written for three nodes")
        names = ("enterprise", "recursive", "national", TOP, REGIONS)
        self._began_s = time.monotonic()
        started = [stage.start(name, wait=False) for name in names]
        member = stage.start("member", wait=False)
        pushing = stage.start(MANUFACTURERS, wait=False)
        agents = [stage.start(f"{name}-agent", wait=False) for name in (TOP, REGIONS)]
        for child in (*started, member, pushing, *agents):
            stage.await_ready(child)
        self._note("note", "three nodes, two recursive nodes, an enterprise node and one member are up")

    def _copy(self) -> None:
        rows = self._until(COPY_S_MAX, "copied", lambda rows: all(_sound(row) for row in rows), report=True)
        records = sum(row.records for row in rows)
        self._note(
            "act", f"copied and verified: {records:,} records, {time.monotonic() - self._began_s:.1f} s after the first start"
        )

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
        config = {
            "names": names,
            "history": str(stage.folder / "history.jsonl"),
            "acks": str(stage.folder / "manufacturers-own"),
            "national": [TOP, MANUFACTURERS],
            "seed": 1,
            "host": HOST,
            "ports": stage.ports,
        }
        path = stage.folder / "prober.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        stage.start("prober", [*stage.python, "-m", "ops.demo.prober", str(path)])
        self._note("note", "clients resolve over UDP, TCP and HTTP, changes stream")
        time.sleep(CALM_S)

    def _lose(self, source: str, words: str) -> None:
        stage = self.stage
        tally = stage.folder / ("manufacturers-own/answered" if source == MANUFACTURERS else f"{source}-answered")
        for name in reversed(PROCESSES_OF[source]):  # the agent first: at the node's death nothing of it is left
            at_ns = stage.children.pop(name).kill()
        self.told.kills.append(Kill(source, at_ns, last_answer_ns(tally)))
        self._note("fault", f"{words}: {source} SIGKILLed", at_ns)
        self._until(5.0, "taken over", lambda rows: any(r.source == source and r.authority == "RESOLUTION" for r in rows))
        self._note(
            "act", f"{source}: resolution taken over, {(time.monotonic_ns() - at_ns) / NS_PER_MS:.0f} ms after the fault at most"
        )
        if source == MANUFACTURERS:
            self._count_source_lost()
        time.sleep(max(0.0, at_ns / 1e9 + max(STEADY_S, NATIONAL_TTL_S + 2.0) - time.monotonic()))

    def _lose_member(self) -> None:
        at_ns = self.stage.children.pop("member").kill()
        self._note("fault", "our own member SIGKILLed", at_ns)
        self.stage.start("member")
        self._note("act", f"our member is back {(time.monotonic_ns() - at_ns) / NS_PER_MS:.0f} ms after its death")
        time.sleep(STEADY_S)

    def _return(self) -> None:
        stage = self.stage
        stage.change_files(TOP, version=2)
        began = [stage.start(name, wait=False) for name in (TOP, f"{TOP}-agent", MANUFACTURERS)]
        for child in began:
            stage.await_ready(child)
        self._note("return", "both nodes are back, with registrations of their own")
        self._until(RETURN_S_MAX, "given back", lambda rows: all(r.authority == "SOURCE" and _sound(r) for r in rows))
        self._note("return", "everything is given back: the nodes answer again")
        time.sleep(2.0)

    def _hang(self) -> None:
        """Worse than a dead node: connections open and nothing comes. Only a client that hedges is not slow."""
        child = self.stage.children[MANUFACTURERS]
        child.process.send_signal(signal.SIGSTOP)
        at_ns = time.monotonic_ns()
        self._note("fault", "the secondary node hangs (SIGSTOP)", at_ns)
        try:
            self._until(
                5.0, "taken over", lambda rows: any(r.source == MANUFACTURERS and r.authority == "RESOLUTION" for r in rows)
            )
            self._note(
                "act", f"{MANUFACTURERS}: taken over, {(time.monotonic_ns() - at_ns) / NS_PER_MS:.0f} ms after it hung at most"
            )
            time.sleep(HANG_S)
        finally:
            child.process.send_signal(signal.SIGCONT)
        self.told.hangs.append(Hang(MANUFACTURERS, at_ns, time.monotonic_ns()))
        self._until(RETURN_S_MAX, "given back", lambda rows: all(r.authority == "SOURCE" and _sound(r) for r in rows))
        self._note("return", "it goes on, and answers again")

    def _end_clients(self) -> None:
        prober = self.stage.children.pop("prober", None)
        if prober is not None:
            self.told.ended_ns = time.monotonic_ns()
            prober.end()

    def _lose_both(self) -> None:
        """Changes stream, node and member die in one moment, the member comes back alone: what was receipted must be there.

        SIGKILL leaves what reached the kernel; that a receipt waits for the disk itself is shown by the tests' recorder.
        """
        stage = self.stage
        (stage.folder / "manufacturers-own" / "pause").unlink(missing_ok=True)
        time.sleep(STREAM_S)
        at_ns = stage.children.pop("member").kill()
        stage.children.pop(MANUFACTURERS).kill()
        self._note("fault", "our member and the node that streams to it SIGKILLed in one moment", at_ns)
        stage.start("member")
        self._until(
            ALONE_S_MAX, "taken over", lambda rows: any(r.source == MANUFACTURERS and r.authority == "RESOLUTION" for r in rows)
        )
        lost = self._lost()
        self._note("act", f"our member alone: {len(self._receipted()):,} receipted registrations looked up, {lost} lost")

    def _lost(self) -> int:
        """Look all receipted registrations up at our own address; remember those that are lost."""
        lost = asyncio.run(self._wrong(self._receipted()))
        self.told.receipted_lost = sorted({*self.told.receipted_lost, *lost})
        return len(lost)

    def _compare(self) -> None:
        """Stop the changes, then compare what each node's own files say with what our copy says, both computed anew."""
        (self.stage.folder / "manufacturers-own" / "pause").touch()
        time.sleep(1.0)
        expected = {source: self._expected(source) for source in SOURCES}
        equal: dict[str, bool] = {}

        def same(rows: list[SourceStatus]) -> bool:
            for row in rows:
                digest = row.detail.get("digest") or {}
                equal[row.source] = (digest.get("records"), digest.get("sum")) == expected[row.source]
            return all(equal.values()) and len(equal) == len(SOURCES)

        try:
            self._until(EQUAL_S_MAX, "equal", same)
        except ZaibeiError:
            self._note("fault", f"contents differ: {sorted(name for name, found in equal.items() if not found)}")
        self.told.digest_equal = all(equal.values()) if len(equal) == len(SOURCES) else None
        lost = self._lost()
        self._note("return", f"{len(self._receipted()):,} receipted registrations looked up one by one, {lost} lost")

    # ------------------------------------------------------------------------------------------------------- looking

    def _until(
        self, limit_s: float, what: str, reached: Callable[[list[SourceStatus]], bool], *, report: bool = False
    ) -> list[SourceStatus]:
        until, rows = time.monotonic() + limit_s, list[SourceStatus]()
        while time.monotonic() < until:
            try:
                rows = self._admin.sources()
                if report:
                    self._progress("copy", sum(row.records for row in rows), self.stage.records)
                if len(rows) == len(SOURCES) and reached(rows):
                    return rows
            except ZaibeiError as exc:
                if exc.code is not Code.UNREACHABLE:
                    raise
            time.sleep(POLL_S)
        seen = "; ".join(
            f"{r.source}: {r.feed} {r.feed_reason} {r.authority} lag {r.lag_entries} verified {r.verified}" for r in rows
        )
        raise ZaibeiError(Code.UNKNOWN, f"not {what} within {limit_s:.0f} s: {seen}", definite=False)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.stage.folder / "manufacturers-own" / name
        if not path.exists():
            return []
        octets = path.read_bytes()
        return [json.loads(line) for line in octets[: octets.rfind(b"\n") + 1].splitlines()]

    def _receipted(self) -> dict[str, str]:
        values = {line["name"]: line["value"] for line in self._lines("acks.jsonl")}
        return {line["name"]: values[line["name"]] for line in self._lines("receipts.jsonl")}

    def _count_source_lost(self) -> None:
        """What the node had told its own clients and we cannot answer: never received by us."""
        receipted = self._receipted()
        unsure = {line["name"]: line["value"] for line in self._lines("acks.jsonl") if line["name"] not in receipted}
        lost = asyncio.run(self._wrong(unsure))
        self.told.source_lost = len(lost)
        self._note(
            "note", f"{len(unsure)} registrations were without a receipt at the fault, {len(lost)} of them never reached us"
        )

    async def _wrong(self, expected: dict[str, str]) -> list[str]:
        """Names whose record at our own address is not the expected one."""
        wrong: list[str] = []
        gate = asyncio.Semaphore(CHECKS_AT_ONCE)
        server = Server("tcp", HOST, self.stage.ports["handle"])
        async with HandleClient(ClientConfig((server,), hedge=True)) as client:

            async def check(name: str, url: str) -> None:
                async with gate:
                    try:
                        answer = await client.resolve(name)
                        if [value.data.decode("utf-8", "replace") for value in answer.reply.values] != [url]:
                            wrong.append(name)
                    except ZaibeiError:
                        wrong.append(name)

            await asyncio.gather(*(check(name, url) for name, url in expected.items()))
        return wrong

    def _expected(self, source: str) -> tuple[int, str]:
        """(records, sum) of what a node's own files hold now, as a digest's total."""
        naming = Naming.of((PREFIX_OF[source],), ())
        records = dict(read_file(self.stage.folder / f"{source}.jsonl", naming))
        if source == MANUFACTURERS:
            records.update(read_file(self.stage.folder / "manufacturers-own" / "registered.jsonl", naming))
        keys = list(records)
        count = total = 0
        for first in range(0, len(keys), 1_000):
            some = keys[first : first + 1_000]
            _, added, summed = native.delta(some, bytes([OP_PUT]) * len(some), [records[key] for key in some], [None] * len(some))
            count, total = count + added, (total + summed) % (1 << 128)
        return count, f"{total:032x}"

    # ------------------------------------------------------------------------------------------------------- history

    def _history(self) -> History:
        stage, told = self.stage, self.told
        self._end_clients()
        covered = {line["name"]: line["at_ns"] for line in self._lines("receipts.jsonl")}
        lookups, late_ms = read_history(stage.folder / "history.jsonl", covered)
        return History(
            lookups=lookups,
            kills=told.kills,
            prober_late_ms=late_ms,
            records=stage.records,
            changes=len(self._lines("acks.jsonl")),
            receipted_lost=told.receipted_lost,
            source_lost=told.source_lost,
            digest_equal=told.digest_equal,
            national_ttl_s=NATIONAL_TTL_S,
            hangs=told.hangs,
            broken=told.broken,
            ended_ns=told.ended_ns,
        )


def _sound(row: SourceStatus) -> bool:
    return row.ready and row.feed == "FLOWING" and row.verified is True and row.lag_entries == 0 and row.freshness == "fresh"


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
            )
        )  # fmt: skip
    return lookups, late_ms
