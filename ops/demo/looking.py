"""How the story looks at the cluster: rows of whoever leads, receipts, answers at our own addresses, digests at every member.

Members that are dead or frozen are left out: a look must not wait for them. What could not be seen in its time is UNKNOWN.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from chaos.standin.registry import read_file
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Server
from ops.admin.cluster_values import ClusterStatus, GroupRow
from ops.admin.values import SourceStatus
from ops.demo.members import HOSTED, NAMES, SEATS, Members
from ops.demo.stage import MANUFACTURERS, PREFIX_OF, SOURCES, Stage
from replica import native
from replica.agent.mapping import Naming
from replica.model.batch import OP_PUT
from replica.model.errors import Code, ZaibeiError

POLL_S = 0.1
RECEIPT_POLL_S = 0.02
CHECKS_AT_ONCE = 32
LAG_ENTRIES_MAX = 50  # while changes stream nobody is at the very last one for long
ANSWER_S_MAX = 3.0
SEEN_FILE = "seen.json"
LATER = (Code.UNREACHABLE, Code.STOPPING, Code.NOT_FOUND)  # a member that is starting; looked at again
HOST_OF = {seat.name: seat.host for seat in SEATS}

Rows = dict[str, SourceStatus]
T = TypeVar("T")


def sound(row: SourceStatus) -> bool:
    """Copied, compared, at the node's head, and fresh."""
    return row.ready and row.feed == "FLOWING" and row.verified is True and row.lag_entries == 0 and row.freshness == "fresh"


def _far(behind: int | None) -> bool:
    return behind is None or behind > LAG_ENTRIES_MAX


class Looking:
    """See the module. `out`: members that are dead or frozen now; the story says so."""

    def __init__(self, stage: Stage, progress: Callable[[str, int, int], None]) -> None:
        self._stage, self._progress = stage, progress
        self.out: set[str] = set()
        self.members: Members = stage.members
        self._seen: dict[str, int] = {}
        self._base: dict[str, tuple[int, int]] = {}

    # ------------------------------------------------------------------------------------------------------- the cluster

    @property
    def up(self) -> list[str]:
        return [name for name in NAMES if name not in self.out]

    def statuses(self) -> dict[str, ClusterStatus]:
        """The cluster as each member that is up sees it."""
        return self._of_each(lambda name: self.members.admin(name).cluster_status())

    def _of_each(self, look: Callable[[str], Any]) -> dict[str, Any]:
        found = {}
        for name in self.up:
            try:
                found[name] = look(name)
            except ZaibeiError as exc:
                if exc.code not in LATER:
                    raise
        return found

    def leaders(self) -> dict[str, str]:
        """Group -> the member that leads it, as the newest term says; a member that is out leads nothing."""
        newest: dict[str, GroupRow] = {}
        for status in self.statuses().values():
            for group in status.groups:
                known = newest.get(group.group)
                if group.leader in self.up and (known is None or (group.term or 0) > (known.term or 0)):
                    newest[group.group] = group
        return {name: group.leader for name, group in newest.items()}

    def leader(self, group: str) -> str:
        """Raises ZaibeiError(UNKNOWN): nobody leads within the limit."""
        return self.until_seen(10.0, f"led: {group}", lambda: self.leaders().get(group))

    def rows(self) -> Rows:
        """Each source as its leader sees it."""
        leaders, found = self.leaders(), Rows()
        rows = {name: self._sources(name) for name in set(leaders.values())}
        for source in SOURCES:
            row = rows.get(leaders.get(source, ""), {}).get(source)
            if row is not None:
                found[source] = row
        return found

    def _sources(self, name: str) -> Rows:
        with self.members.admin(name) as admin:
            return {row.source: row for row in admin.sources()}

    def whole(self) -> str:
        """ "" when every group has all members as voters that hold what its leader holds; otherwise what is missing."""
        statuses = self.statuses()
        if len(statuses) < len(NAMES):
            return f"{', '.join(sorted(set(NAMES) - set(statuses)))} does not answer"
        leaders = self.leaders()
        for group in (*SOURCES, HOSTED):
            row = next((one for one in statuses[leaders[group]].groups if one.group == group), None) if group in leaders else None
            if row is None:
                return f"{group} is led by nobody"
            followers = [name for name in NAMES if name != row.leader]
            missing = [name for name in followers if name not in row.voters or _far(row.behind.get(name))]
            if missing or row.out_of_service or row.learners:
                seen = f"voters {', '.join(row.voters)}; behind {row.behind}; {row.out_of_service or ''} {row.trouble}"
                return f"{group}, led by {leaders[group]}: {', '.join(missing)} not there yet; {seen}"
        return ""

    def write_down(self) -> None:
        """What every member sees now, into the stage's folder: for whoever asks why the story could not go on."""
        seen = {"clusters": self.statuses(), "sources": self._of_each(self._sources)}
        (self._stage.folder / SEEN_FILE).write_bytes(msgspec.json.encode(seen))

    # ------------------------------------------------------------------------------------------------------- waiting

    def until(self, limit_s: float, what: str, reached: Callable[[Rows], bool], *, report: bool = False) -> Rows:
        """Look at all sources until something holds. Raises ZaibeiError(UNKNOWN) with what was seen last."""
        until, rows = time.monotonic() + limit_s, Rows()
        while time.monotonic() < until:
            try:
                rows = self.rows()
                if report:
                    self._seen.update((name, row.records) for name, row in rows.items())
                    self._progress("copy", sum(self._seen.values()), self._stage.records)
                if len(rows) == len(SOURCES) and reached(rows):
                    return rows
            except ZaibeiError as exc:
                if exc.code not in LATER:
                    raise
            time.sleep(POLL_S)
        seen = "; ".join(
            f"{r.source}: {r.feed} {r.feed_reason} {r.authority} lag {r.lag_entries} verified {r.verified} {r.freshness}"
            for r in rows.values()
        )
        raise ZaibeiError(Code.UNKNOWN, f"not {what} within {limit_s:.0f} s: {seen}", definite=False)

    def until_whole(self, limit_s: float) -> None:
        """Raises ZaibeiError(UNKNOWN): not all members hold everything by then."""
        missing, until = "", time.monotonic() + limit_s
        while time.monotonic() < until:
            missing = self.whole()
            if not missing:
                return
            time.sleep(POLL_S)
        raise ZaibeiError(Code.UNKNOWN, f"the cluster was not whole within {limit_s:.0f} s: {missing}", definite=False)

    def until_seen(self, limit_s: float, what: str, look: Callable[[], T | None], poll_s: float = POLL_S) -> T:
        """Raises ZaibeiError(UNKNOWN)."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            found = look()
            if found is not None:
                return found
            time.sleep(poll_s)
        raise ZaibeiError(Code.UNKNOWN, f"not {what} within {limit_s:.0f} s", definite=False)

    # ------------------------------------------------------------------------------------------------------- registrations

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Whole lines of a file of the pushing node."""
        path = self._stage.folder / "manufacturers-own" / name
        if not path.exists():
            return []
        octets = path.read_bytes()
        return [json.loads(line) for line in octets[: octets.rfind(b"\n") + 1].splitlines()]

    def receipted(self) -> dict[str, str]:
        """Registered name -> its value, of what a quorum receipt covers."""
        values = {line["name"]: line["value"] for line in self.lines("acks.jsonl")}
        return {line["name"]: values[line["name"]] for line in self.lines("receipts.jsonl")}

    def unreceipted(self) -> dict[str, str]:
        covered = {line["name"] for line in self.lines("receipts.jsonl")}
        return {line["name"]: line["value"] for line in self.lines("acks.jsonl") if line["name"] not in covered}

    def receipt_after(self, at_ns: int, limit_s: float) -> int:
        """When a quorum receipt came for something that was registered after a moment, CLOCK_MONOTONIC ns.

        A receipt that was on its way at that moment says nothing of what came after it. Raises ZaibeiError(UNKNOWN).
        """

        def look() -> int | None:
            later = {line["name"] for line in self.lines("acks.jsonl") if line["at_ns"] > at_ns}
            return min((line["at_ns"] for line in self.lines("receipts.jsonl") if line["name"] in later), default=None)

        return self.until_seen(limit_s, "receipted again", look, RECEIPT_POLL_S)

    # ------------------------------------------------------------------------------------------------------- answers

    def wrong(self, expected: dict[str, str], members: Sequence[str] = ()) -> list[str]:
        """Names whose record at one of these members is not the expected one; none named: at our addresses together."""
        if not members:
            return asyncio.run(self._wrong(expected, self.servers(self.up)))
        found = {name for member in members for name in asyncio.run(self._wrong(expected, self.servers([member])))}
        return sorted(found)

    def servers(self, members: Sequence[str]) -> tuple[Server, ...]:
        return tuple(Server("tcp", HOST_OF[name], self._stage.ports["handle"]) for name in members)

    async def _wrong(self, expected: dict[str, str], servers: tuple[Server, ...]) -> list[str]:
        wrong: list[str] = []
        gate = asyncio.Semaphore(CHECKS_AT_ONCE)
        async with HandleClient(ClientConfig(servers, hedge=True)) as client:

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

    def first_answer(self, name: str, limit_s: float) -> int:
        """When any of our addresses first answers this name, CLOCK_MONOTONIC ns. Raises ZaibeiError(UNKNOWN)."""

        async def ask() -> int:
            until = time.monotonic() + limit_s
            async with HandleClient(ClientConfig(self.servers(NAMES), hedge=True, deadline_s=ANSWER_S_MAX)) as client:
                while time.monotonic() < until:
                    try:
                        if (await client.resolve(name)).reply.code == 1:
                            return time.monotonic_ns()
                    except ZaibeiError:
                        pass
                    await asyncio.sleep(RECEIPT_POLL_S)
            raise ZaibeiError(Code.UNKNOWN, f"no member answered within {limit_s:.0f} s", definite=False)

        return asyncio.run(ask())

    # ------------------------------------------------------------------------------------------------------- contents

    def digests(self) -> dict[str, dict[str, tuple[str, int, str]]]:
        """Group -> member -> (position, records, sum), each computed by the member itself."""
        found: dict[str, dict[str, tuple[str, int, str]]] = {}
        for member, rows in self._of_each(self._sources).items():
            for source, row in rows.items():
                digest = row.detail.get("digest") or {}
                place = (str(digest.get("position")), int(digest.get("records", -1)), str(digest.get("sum")))
                found.setdefault(source, {})[member] = place
        return found

    def remember(self, source: str) -> None:
        """Add up what a node held from the beginning, where that file never changes; the manufacturers' takes seconds."""
        if source == MANUFACTURERS:
            self._base[source] = self._added_up(source, f"{source}.jsonl")

    def expected(self, source: str) -> tuple[int, str]:
        """(records, sum) of what a node's own files hold now, as a digest's total."""
        count, total = self._base.get(source) or self._added_up(source, f"{source}.jsonl")
        if source == MANUFACTURERS:  # new names only, so that sums may be added
            added, summed = self._added_up(source, "manufacturers-own/registered.jsonl")
            count, total = count + added, (total + summed) % (1 << 128)
        return count, f"{total:032x}"

    def _added_up(self, source: str, file: str) -> tuple[int, int]:
        records = read_file(self._stage.folder / file, Naming.of((PREFIX_OF[source],), ()))
        keys = list(records)
        count = total = 0
        for first in range(0, len(keys), 1_000):
            some = keys[first : first + 1_000]
            values = [records[key] for key in some]
            _, added, summed, _ = native.delta(some, bytes([OP_PUT]) * len(some), values, [None] * len(some))
            count, total = count + added, (total + summed) % (1 << 128)
        return count, total
