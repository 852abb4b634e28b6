"""A whole copy in one process: the real agent log, feed, journal, group log and store, joined by a link in memory; both sides are
killed between any two of their persistence steps, from a seed.

A kill is an exception out of one step, then an image of the folder as it is at that moment: nothing is flushed or closed before.
What the store had in memory only is lost, as it is when a process dies.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from replica.agent.edge_content import Content, View
from replica.agent.edge_log import AgentLog
from replica.agent.edge_segments import SegmentFiles
from replica.agent.nature import Nature, Transaction
from replica.agent.retention import Spool
from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_disk import DiskLimits as JournalDisk
from replica.consensus.edge_journal import Journal, JournalLimits
from replica.consensus.edge_rows import JournalRows
from replica.consensus.group import GroupLog
from replica.consensus.group_limits import GroupLimits
from replica.feed.desk import Setup
from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_source_driver import SourceDriver
from replica.feed.limits import MS, FeedLimits
from replica.feed.memory import MemoryLink
from replica.member.group_port import GroupPort
from replica.model.batch import OP_DELETE, Change
from replica.model.errors import ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.position import Position
from replica.model.states import FeedState
from replica.store import SourceStore, edge_beside, edge_loader, edge_store
from replica.store.edge_generation import Generation
from replica.store.edge_rocks import Rocks
from replica.v1 import entry_pb2, source_pb2
from tests.unit.agent.helpers import LINEAGE, MEMBER, SIGNER, SOURCE, delete, put
from tests.unit.store.support import held, small_budget

LIMITS = FeedLimits(
    credit_batches=8, nonce_interval_ns=20 * MS, receipt_interval_ns=2 * MS, load_retry_ns=20 * MS, load_retry_ns_max=80 * MS,
    busy_pause_ns=10 * MS, beat_interval_ms=20,
)  # fmt: skip
RECORDS = 220  # enough for the brake
HEAL_S_MAX = 60

COPY_STEPS: tuple[tuple[object, str], ...] = (
    (Generation, "commit"), (Generation, "copy_history"), (Generation, "fold"), (Rocks, "flush"), (Rocks, "write"),
    (edge_store, "write_current"), (edge_beside, "discard"), (edge_loader, "move_durable"), (JournalRows, "write"),
    (JournalRows, "flush"),
)  # fmt: skip
AGENT_STEPS: tuple[tuple[object, str], ...] = (
    (SegmentFiles, "append"), (SegmentFiles, "start_segment"), (SegmentFiles, "release"), (Content, "apply"),
    (Content, "begin_epoch"), (Content, "sync"), (Content, "fold"), (Content, "note"),
)  # fmt: skip


class Killed(Exception):
    """The process ends here."""


class Reaper:
    """Kills at the n-th call of one step, before or after it."""

    def __init__(self, steps: Sequence[tuple[object, str]], patch: Callable[[object, str, object], None]) -> None:
        self.names = [name for _, name in steps]
        self.armed: tuple[str, int, bool] | None = None
        self.hit = False
        for owner, name in steps:
            patch(owner, name, self._wrapped(name, getattr(owner, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if self.hit:
                raise Killed(f"{name}: dead already")
            now = self._counts(name)
            if now is False:
                self.hit = True
                raise Killed(f"before {name}")
            done = real(*arguments, **named)
            if now is True:
                self.hit = True
                raise Killed(f"after {name}")
            return done

        return step

    def _counts(self, name: str) -> bool | None:
        """True: kill after the step, False: before it, None: not here."""
        if self.armed is None or self.armed[0] != name:
            return None
        _, left, after = self.armed
        self.armed = (name, left - 1, after) if left else None
        return None if left else after

    def arm(self, random: Random) -> None:
        self.armed = (random.choice(self.names), random.randrange(6), random.random() < 0.5)

    def rest(self) -> None:
        self.armed, self.hit = None, False


def image_of(old: Path, new: Path) -> None:
    """A folder as a process that dies leaves it: of one moment, so again while RocksDB tidies up in its threads."""
    gone = shutil.ignore_patterns("load-*", "dead-*")  # on their way out, and of no use to anybody
    for _ in range(50):
        before = _files(old)
        with suppress(shutil.Error, FileNotFoundError):
            shutil.copytree(old, new, ignore=gone)
            if _files(old) == before:
                return
        shutil.rmtree(new, ignore_errors=True)
        time.sleep(0.02)
    raise AssertionError(f"{old} never stood still")


def _files(folder: Path) -> list[tuple[str, int]]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(("load-", "dead-"))]
        for name in names:
            path = Path(place, name)
            if name != "LOG":
                with suppress(FileNotFoundError):
                    found.append((str(path), path.stat().st_size))
    return sorted(found)


class CopyWorld:
    """`open` first; `close` at the end."""

    def __init__(self, folder: Path, seed: int, copy_reaper: Reaper, agent_reaper: Reaper) -> None:
        self.folder, self.random, self.seed = folder, Random(seed), seed
        self.copies = self.agents = 0
        self.copy_reaper, self.agent_reaper = copy_reaper, agent_reaper
        self.acked: dict[bytes, bytes] = {}  # what `append` returned for
        self.doubt: dict[bytes, bytes | None] = {}  # what it did not return for: there or not
        self.receipted: Position | None = None
        self.serial = 0
        self.story: list[str] = []
        self._link: MemoryLink | None = None
        self._joining: asyncio.Task[None] | None = None

    def tell(self, line: str) -> None:
        self.story.append(line)

    # -- the source

    def open_agent(self) -> None:
        self.agent = AgentLog.open(
            self.folder / f"agent-{self.agents}", Nature(SOURCE, ("88.118",), beat_interval_ms=20), SIGNER,
            spool=Spool(keep_octets=2_000), marker=self.folder / "identity",
        )  # fmt: skip
        receipt = self.agent.receipt

        def noted(message: source_pb2.Receipt) -> None:
            position = Position.from_wire(message.position)
            if message.level == source_pb2.Receipt.LEVEL_QUORUM and (
                self.receipted is None or position.place > self.receipted.place
            ):
                self.receipted = position
            receipt(message)

        self.agent.receipt = noted  # type: ignore[method-assign]

    async def write(self, *changes: Change) -> None:
        """A commit of the registry; in doubt when the agent died in it."""
        for change in changes:
            self.doubt[change.key] = None if change.op == OP_DELETE else change.value
        before = dict(self.acked)
        try:
            await asyncio.to_thread(self.agent.append, [Transaction(changes)])
        except Killed as exc:
            self.tell(f"agent killed {exc}")
            await self.crash_agent(before)
            return
        self._acknowledge()

    def _acknowledge(self) -> None:
        for name, value in self.doubt.items():
            if value is None:
                self.acked.pop(name, None)
            else:
                self.acked[name] = value
        self.doubt.clear()

    def content(self) -> dict[bytes, bytes]:
        with View(self.agent.content.path) as view:
            return dict(view.scan())

    async def crash_agent(self, before: dict[bytes, bytes] | None = None) -> None:
        await self.part()
        old, self.agents = self.folder / f"agent-{self.agents}", self.agents + 1
        shutil.copytree(old, self.folder / f"agent-{self.agents}")
        self.agent_reaper.rest()
        dead, _ = self.agent, self.open_agent()
        dead.close()
        shutil.rmtree(old)
        found = self.content()
        whole = dict(self.acked)
        for name, value in self.doubt.items():
            whole.pop(name, None)
            if value is not None:
                whole[name] = value
        assert found in (self.acked, whole), "the agent lost or made up something it had acknowledged"
        self.acked = found
        self.doubt.clear()
        self.tell(f"agent is back at {self.agent.head().short()}")
        self.join()

    # -- the copy

    async def open_copy(self) -> None:
        home = self.folder / f"copy-{self.copies}"
        limits = JournalLimits(disk=JournalDisk(0, 0, 0), mark_idle_s=0.05)
        self.journal = await asyncio.to_thread(Journal.open, home / "journal", limits=limits)
        self.apply = ApplyThread()
        self.apply.start()
        budget = small_budget(home, log_batches_max=12, chains_max=64)
        self.store = await asyncio.to_thread(SourceStore.open, home / "store", SOURCE, budget)
        flush_s = self.random.choice((0.05, 0.3, 30.0))
        self.group = GroupLog(
            SOURCE, self.journal, self.store, self.apply, limits=GroupLimits(flush_interval_s=flush_s), reopen=self.store.reopen
        )
        await self.group.start()
        self._judge()
        setup = Setup(
            SOURCE, SIGNER.public, frozenset({prefix_key("88.118")}), "member-1", MEMBER, LINEAGE, self.random.randbytes,
            limits=LIMITS,
        )  # fmt: skip
        self.port = GroupPort(self.group, self.store)
        self.driver = FeedDriver(setup, self.port)
        self.tell(f"copy is back at {self.store.state().position.short()}")
        self.join()

    async def _bury(self) -> None:
        """Everything of the copy stands still; nothing more is flushed or written."""
        await self.part()
        await asyncio.to_thread(self.apply.stop)
        with self.journal._wake:
            self.journal._queue.clear()
        await asyncio.to_thread(self.journal.drain)

    async def crash_copy(self) -> None:
        await self._bury()
        old, self.copies = self.folder / f"copy-{self.copies}", self.copies + 1
        await asyncio.to_thread(image_of, old, self.folder / f"copy-{self.copies}")
        self.copy_reaper.rest()
        await self._dispose()
        shutil.rmtree(old)
        await self.open_copy()

    async def _dispose(self) -> None:
        await self.group.stop()
        await asyncio.to_thread(self.store.close)
        await asyncio.to_thread(self.journal.close)

    def _judge(self) -> None:
        """After a start: what had a receipt is there, and the content is the source's at that position."""
        state = self.store.state()
        if self.receipted is not None:
            assert state.position.covers(self.receipted), (
                f"receipt for {self.receipted.short()}, the copy starts at {state.position.short()}"
            )
            kept = self.store.chain_at(*self.receipted.place)
            assert kept in (None, self.receipted), "another history than the one receipted"
        self.judge_content()

    def judge_content(self) -> None:
        """The digest of the live copy is the source's at exactly its position."""
        state = self.store.state()
        ours = self.store.digest_at(state.position)
        if not state.ready or ours is None:
            return
        known = [one for one in self.agent.content.boundaries_at(*ours.position.place) if one.position == ours.position]
        assert known, f"the copy stands at {ours.position.short()}, where the source never was"
        assert ours.same_content(known[0]), f"content at {ours.position.short()} is not the source's"

    # -- the link

    def join(self) -> None:
        if self._joining is None:
            self._joining = asyncio.get_running_loop().create_task(self._keep_joined())

    async def part(self) -> None:
        joining, self._joining = self._joining, None
        if joining is not None:
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
            await self.driver.stop()

    def cut(self) -> None:
        if self._link is not None:
            self._link.cut()

    async def _keep_joined(self) -> None:
        while True:
            self._link = MemoryLink(self.agent)
            loop = asyncio.get_running_loop()
            both = {
                loop.create_task(self.driver.run(self._link)),
                loop.create_task(SourceDriver(self.agent, self._link.source, MEMBER.public).run()),
            }
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
            await asyncio.sleep(0.01)

    # -- people

    def decide(self, *, release: bool) -> None:
        hold = self.store.state().hold
        if hold is not None:
            body = entry_pb2.HoldDecision(hold=hold.ident, release=release)
            body.approvals.extend(entry_pb2.Approval(operator=name) for name in ("an", "bo"))
            self.tell(f"{'released' if release else 'discarded'} {hold.ident} side {hold.side}")
            with suppress(Exception):  # the copy may just have been killed
                self.port.propose(entry_pb2.Entry(format=1, admitted_ms=1, decision=body))

    # -- a life

    async def open(self) -> None:
        self.open_agent()
        await self.write(*[put(f"R{place}") for place in range(RECORDS)])
        await self.open_copy()
        if self.seed % 3:  # otherwise the very first meeting and load are disturbed too
            await self.heal()

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            await self._step()
            await asyncio.sleep(self.random.choice((0, 0, 0.005, 0.03, 0.12)))
            if self.copy_reaper.hit:
                self.tell("copy killed in a step")
                await self.crash_copy()
            if self.agent_reaper.hit:
                self.tell("agent killed in a step")
                await self.crash_agent()

    async def _step(self) -> None:
        dice = self.random.randrange(100)
        if dice < 55:
            for _ in range(self.random.randrange(1, 5)):
                self.serial += 1
                names = {f"N{self.random.randrange(60)}" for _ in range(self.random.randrange(1, 6))}
                await self.write(*[put(n, f"{self.serial}") if self.random.random() < 0.8 else delete(n) for n in sorted(names)])
        elif dice < 60:
            self.tell("mass delete")
            gone = self.random.sample(range(RECORDS), 150)
            await self.write(*[delete(f"R{place}") for place in gone])
            await self.write(*[put(f"R{place}") for place in gone])
        elif dice < 68:
            self.tell("link cut")
            self.cut()
        elif dice < 76:
            self.copy_reaper.arm(self.random)
            self.tell(f"copy to be killed: {self.copy_reaper.armed}")
        elif dice < 82:
            self.agent_reaper.arm(self.random)
            self.tell(f"agent to be killed: {self.agent_reaper.armed}")
        elif dice < 86:
            self.tell("copy killed")
            await self.crash_copy()
        elif dice < 92:
            with suppress(Killed):
                await asyncio.to_thread(self.agent.housekeeping)
        else:
            self.decide(release=self.random.random() < 0.7)
        if not self.copy_reaper.hit and not self.agent_reaper.hit:
            self.judge_content()

    async def heal(self) -> None:
        """Nobody is killed any more: everything arrives."""
        self.copy_reaper.armed = self.agent_reaper.armed = None
        if self.copy_reaper.hit:
            await self.crash_copy()
        if self.agent_reaper.hit:
            await self.crash_agent()
        self.tell("everything may arrive")
        async with asyncio.timeout(HEAL_S_MAX):
            while not self._whole():
                assert self.group.failure is None, str(self.group.failure)
                assert self.store.state().feed not in (FeedState.FORKED, FeedState.FENCED), self.store.state().feed_reason
                self.decide(release=True)
                await asyncio.sleep(0.03)
        assert held(self.store) == self.content() == self.acked
        self.judge_content()

    def _whole(self) -> bool:
        state, head = self.store.state(), self.agent.head()
        return (
            state.ready and state.position == head and self.receipted == head and state.feed is FeedState.FLOWING
            and bool(state.verified) and state.side is None
        )  # fmt: skip

    def told(self) -> str:
        """What happened, and how things stand; for a person who replays the seed."""
        state, stream = self.store.state(), self.driver._stream
        session = stream.session if stream is not None else None
        where = "no stream" if session is None else f"{session.phase} {session.load.step} since {session.load.since_ns}"
        return "\n".join(
            [*self.story[-40:], str(state)[:1_500], where, f"head {self.agent.head().short()} joined {self._joining}"]
        )

    async def close(self) -> None:
        await self.part()
        await asyncio.to_thread(self.apply.stop)
        with suppress(ZaibeiError):  # of a copy that broke
            await self._dispose()
        self.agent.close()
