"""Runs one source's failback on the member that leads its group: looks, steps, carries out (takeover/failback.py decides)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from replica.feed.edge_driver import FeedDriver
from replica.member.edge_broken import tell_end
from replica.member.failback_ledger import LedgerKeeper
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.ladder import RETURNING, Stage
from replica.model.position import Position
from replica.takeover.failback import Alarm, Certify, Commit, Compare, Failback, Fetch, Node, Order, Settle, Step, Wish, World
from replica.takeover.hand_back import Answers
from replica.v1 import entry_pb2, source_pb2

LOOK_S = 0.05
AGAIN_S = 1.0  # after something failed
HEARD_NS_MAX = 5_000_000_000  # beats come every 50 to 500 ms
DESCRIBED_S = 2.0  # a source that has not said where its own history ends is asked again
TOLD_AGAIN_S = 10.0  # an alarm whose text changes, as one with positions does, fills no log

log = logging.getLogger("zaibei.member")


class FailbackRunner:
    """See the module.

    Args:
        state, leads, service_alive, age_ms: of the source on this member.
        subscribe: calls back after each applied entry, on any thread; the result ends it.
        commit: proposes an entry and waits until it is applied. Raises ZaibeiError: it had no effect, or that is not known.
        compare: asks the node for what was changed here, and compares.
    """

    def __init__(
        self,
        failback: Failback,
        driver: FeedDriver,
        keeper: LedgerKeeper,
        *,
        state: Callable[[], GroupState],
        leads: Callable[[], bool],
        service_alive: Callable[[], bool],
        age_ms: Callable[[], int | None],
        boottime_ns: Callable[[], int],
        subscribe: Callable[[Callable[[GroupState], None]], Callable[[], None]],
        commit: Callable[[entry_pb2.Entry], Awaitable[None]],
        compare: Callable[[GroupState], Awaitable[Answers]],
    ) -> None:
        self.failback, self._driver, self._keeper = failback, driver, keeper
        self._state, self._leads, self._alive, self._age, self._boot = state, leads, service_alive, age_ms, boottime_ns
        self._subscribe, self._commit, self._compare = subscribe, commit, compare
        self._unsubscribe: Callable[[], None] = lambda: None
        self.alarms: dict[str, str] = {}
        self._told: dict[str, tuple[float, str]] = {}  # each alarm as it was logged last, and when
        self.trouble = ""  # of the newest step that failed
        self._digest: ContentDigest | None = None
        self._asked_s = 0.0
        self.answers: Answers | None = None  # of the node handed back to; only while the ladder stands at ACCEPTED
        self._compared_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def start(self) -> None:
        loop = asyncio.get_running_loop()

        def changed(state: GroupState) -> None:  # on the apply thread
            if state.ladder.stage in RETURNING:
                loop.call_soon_threadsafe(self._wake.set)

        self._unsubscribe = self._subscribe(changed)
        self._task = loop.create_task(self._run(), name=f"failback {self.failback.source}")
        self._task.add_done_callback(tell_end)

    async def stop(self) -> None:
        self._unsubscribe()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ordered(self, order: Order) -> None:
        """An operator's run."""
        if order.wish is Wish.RETURN:
            self._keeper.policies = order.policies
        self.failback.ordered(order)
        self._wake.set()

    def node(self) -> Node:
        """What the source says of itself on the stream it holds open."""
        driver, head = self._driver, self._driver.stated_head
        heard = driver.heard_ns and self._boot() - driver.heard_ns <= HEARD_NS_MAX
        if head is None or not heard:
            return Node(False, why="its feed is not connected")
        state, digest = self._state(), self._digest
        description, granted, own = driver.description, state.granted, None
        # What it said in an earlier epoch is of an earlier return: streams outlast both.
        if description is not None and driver.described_in == granted and description.HasField("own_end"):
            own = Position.from_wire(description.own_end)
        follows = head if granted is not None and (head.lineage, head.epoch) == (granted.lineage, granted.epoch) else None
        if digest is not None and digest.position == state.position:
            follows = digest.position  # it said so since its newest beat
        elif digest is not None and digest.position != follows:
            digest = None
        return Node(True, own, follows, digest, "" if own is not None else "it has not said where its own history ends")

    def world(self) -> World:
        """The present."""
        now_ms = time.time_ns() // 1_000_000
        state = self._state()
        if state.ladder.stage is not Stage.ACCEPTED:
            self.answers = None
        return World(state, self._leads(), self.node(), self._alive(), self._age(), self._boot(), now_ms, self.answers)

    async def _run(self) -> None:
        while True:
            busy = self._state().ladder.stage in RETURNING or self.failback.order is not None
            try:
                async with asyncio.timeout(LOOK_S if busy else None):  # at rest nothing turns
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if not self._leads():
                continue
            try:
                await self.look()
                self.trouble = ""
            except ZaibeiError as exc:
                if str(exc) != self.trouble:
                    log.warning("failback", extra={"fields": {"source": self.failback.source, "trouble": str(exc)}})
                self.trouble = str(exc)
                await asyncio.sleep(AGAIN_S)

    async def look(self) -> None:
        """One step. Raises ZaibeiError: something failed; the next look begins where the group stands."""
        world = self.world()
        steps = self.failback.step(world)
        self._tell([step for step in steps if isinstance(step, Alarm)])
        for step in steps:
            await self._carry_out(step, world)
            if isinstance(step, Commit | Fetch):
                self._wake.set()  # what follows from it need not wait for the next look
        if world.state.ladder.stage in (Stage.RETURN_REQUESTED, Stage.CATCHING_UP) and world.node.own is None:
            self._ask_again(world)

    async def _carry_out(self, step: Step, world: World) -> None:
        match step:
            case Commit(entry, what):
                log.info("failback", extra={"fields": {"source": self.failback.source, "step": what}})
                try:
                    await self._commit(entry)
                except ZaibeiError as exc:
                    if exc.code is not Code.CONFLICT or entry.ladder.stage != entry_pb2.Ladder.STAGE_SOURCE_EQUAL:
                        raise
                    self._digest = None
                    for back in self.failback.differs(self.world(), exc.trouble.message):
                        await self._carry_out(back, world)
            case Fetch(common, until):
                await self._keeper.fetch(common, until)
            case Settle(common):
                try:
                    await self._keeper.settle(common)
                except ZaibeiError:
                    self.failback.rejudge = True
                    raise
            case Certify(position):
                await self._certify(position)
            case Compare():
                await self._compare_again(world)

    async def _compare_again(self, world: World) -> None:
        if self.answers is None or self._boot() / 1e9 - self._compared_s >= AGAIN_S:
            self.answers = await self._compare(world.state)
            self._compared_s = self._boot() / 1e9
            self._wake.set()

    async def _certify(self, position: Position) -> None:
        """The source's digest at exactly the frozen position, over the stream its certificate authenticates."""
        answer = await self._driver.digest(source_pb2.DigestRequest(position=position.to_wire()))
        if answer.HasField("digest") and Position.from_wire(answer.digest.position) == position:
            self._digest = ContentDigest.from_wire(answer.digest)

    def _ask_again(self, world: World) -> None:
        now_s = world.now_ns / 1e9
        if world.node.reached and now_s - self._asked_s >= DESCRIBED_S:
            self._asked_s = now_s
            self._driver.meet_again("say where your own history ends")

    def _tell(self, alarms: list[Alarm]) -> None:
        now_s = self._boot() / 1e9
        for alarm in alarms:
            told = self._told.get(alarm.code) if alarm.code in self.alarms else None
            if told is None or (told[1] != alarm.text and now_s - told[0] >= TOLD_AGAIN_S):
                self._told[alarm.code] = now_s, alarm.text
                log.warning(alarm.text, extra={"fields": {"source": self.failback.source, "alarm": alarm.code}})
        self.alarms = {alarm.code: alarm.text for alarm in alarms}
