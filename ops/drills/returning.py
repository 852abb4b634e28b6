"""Acts of taking over registrations and giving them back, by the operators' own commands.

cut off or slow -> the node registers alone -> it dies -> plan, two signatures, run -> registered here -> it returns, follows,
and is given back by `failback plan` and `run`
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.faults.edge_stream_proxy import Way
from chaos.faults.fault import Fault
from chaos.faults.rules import StreamRule
from chaos.scenarios.scenario import Act, Step
from chaos.standin.registries import url_of
from ops.drills.registering_cluster import RegisteringCluster
from ops.drills.registering_stage import PEOPLE, RegisteringStage
from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import RETURNING
from replica.model.ladder import Stage as Rung
from replica.model.position import Position

if TYPE_CHECKING:
    from ops.drills.acts import Acts

OWN_FIRST, OWN_WRITES, AT_ONCE = 500_000, 100, 10  # numbers of names that the node registers alone; so many in a commit
# Of a slow feed; more commits than the copy gives credit for, so that the node states what it may not send yet.
SLOW_OCTETS_PER_S, SLOW_WRITES, BEHIND_MIN = 10_000, 1_500, 300
OURS_FIRST, OURS = 700_000, 3
SERVING_S_MAX, BACK_S_MAX, BEHIND_S_MAX = 30.0, 30.0, 30.0
ZONE_OFF_S_MAX = 60.0  # an election, and the commands once more
OLD_S = 4.0  # so long its resolver answers from its old files after the hand-back
AT_THE_NODE = (Rung.ACCEPTED.name, Rung.OBSERVED.name, Rung.NORMAL.name)
EPOCHS = 2  # ours, and the node's next
LOOK_S = 0.02
REASON = "drill: its hall is dark"
ON_THE_WAY = tuple(one.name for one in RETURNING)
PAST_WAITING = tuple(one for one in ON_THE_WAY if one != Rung.RETURN_REQUESTED.name)

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {
        Act.RETURNS_WITH_WRITES: lambda _: Returning(acts).broken(),
        Act.RETURN_INTERRUPTED: lambda _: Returning(acts, interrupted=True).broken(),
        Act.ZONE_OFF_IN_RETURN: lambda _: Returning(acts, zone_off=True).broken(),
        Act.RETURNS_WITH_OLD_ANSWERS: lambda _: Returning(acts, old_answers=True).broken(),
        Act.TAKEN_OVER_BEHIND: lambda _: Returning(acts, behind=True).broken(),
    }


@dataclass(slots=True)
class Returning:
    """One source, from the cut to the return. own: names that the node alone told its clients; ours: those registered here."""

    acts: Acts
    interrupted: bool = False
    behind: bool = False
    zone_off: bool = False
    old_answers: bool = False
    own: dict[str, str] = field(default_factory=dict)
    ours: dict[str, str] = field(default_factory=dict)
    epoch: int = 0  # of the node, before
    unheld: int = 0  # of the node's own, what the copy lacks when the node is dead

    @property
    def stage(self) -> RegisteringStage:
        found = self.acts.stage
        assert isinstance(found, RegisteringStage), "this act needs a stage on which registrations may be taken over"
        return found

    @property
    def source(self) -> str:
        return self.stage.sources[0]

    @asynccontextmanager
    async def broken(self) -> AsyncIterator[None]:
        """The node is gone and its registrations are ours; healed when they are the node's again."""
        await self.acts.settled()
        self.epoch = Position.parse((await self.stage.rows())[self.source].position).epoch
        what = "changes that its slow feed had not carried" if self.behind else "writes of its own while it was cut off"
        async with Fault(f"the node dies with {what}", self._die, self._revive, self.acts.log):
            await self.take_over()
            await self.register()
            yield
        await self._return()
        await self._look_at_both()

    # ------------------------------------------------------------------------------------------------- down

    async def _die(self) -> None:
        stage = self.stage
        if self.behind:
            for way in Way:
                stage.push.set(way, StreamRule(octets_per_s=SLOW_OCTETS_PER_S))
        else:
            stage.cut(True)
            await stage.ask(do="mute", on=True)
        count, since_ns = SLOW_WRITES if self.behind else OWN_WRITES, time.monotonic_ns()
        for first in range(OWN_FIRST, OWN_FIRST + count, AT_ONCE):
            await stage.ask(do="put", node=self.source, first=first, count=AT_ONCE, text="own")
        prefix = stage.prefix_of[self.source]
        self.own = {f"{prefix}/N-{number}": "own" for number in range(OWN_FIRST, OWN_FIRST + count)}
        if self.behind:
            await self._until(lambda: stage.ladder(self.source), lambda row: (row["behind"] or 0) >= BEHIND_MIN, BEHIND_S_MAX)
        stage.cut(True)
        os.kill(stage.pid("nodes"), signal.SIGKILL)
        await stage.gone("nodes")
        self.unheld = len(await self.acts.wrong_of(self.own))
        self.acts.outside.source_lost = self.unheld  # while it is away: they return with it
        self.acts.outside.source_lost_ms = (time.monotonic_ns() - since_ns) // 1_000_000

    async def take_over(self) -> None:
        """As two people do it: plan, sign, sign, run; where the copy is behind, refused first."""
        stage, member = self.stage, self.stage.member_words()
        loss = list[str]()
        if self.behind:
            row = await stage.ladder(self.source)
            behind = row["behind"]
            code, told = await stage.zaibei("takeover", "plan", self.source, "--registration", *member)
            refused = str(told.get("refusal", ""))
            number = f"{behind} changes behind the source" in refused
            self.acts.fact("refused with the number", bool(code) and number, f"exit {code}: {refused or told}")
            loss = ["--accept-loss", str(behind)]
        token = await stage.signed(self.source, "--registration", *loss)
        code, told = await stage.run_signed(self.source, token, REASON)
        if code:
            raise ZaibeiError(Code.REFUSED, f"the takeover was not run: {told}")
        row = await self._until(lambda: stage.ladder(self.source), lambda row: row["stage"] == Rung.SERVING.name, SERVING_S_MAX)
        by_both = row["stage"] == Rung.SERVING.name and sorted(row["approvals"]) == sorted(PEOPLE)
        self.acts.fact("taken over by two people", by_both, f"stands at {row['stage']}, approved by {row['approvals']}")
        if self.behind:
            await self._recorded(int(loss[1]))

    async def _recorded(self, accepted: int) -> None:
        """The audit says what was accepted, and how much the copy lacked, for whoever asks years later."""
        code, told = await self.stage.zaibei("audit", "list", self.source, *self.stage.member_words())
        proposed = [one for one in told.get("records", ()) if "accepted" in one["evidence"]]
        said = [int(one["evidence"]["accepted"]) for one in proposed]
        held = code == 0 and said[-1:] == [accepted]
        self.acts.fact("what was accepted is recorded", held, f"losses accepted, by the audit: {said}")

    async def register(self) -> None:
        """Our own registrar's command; what it says is done is a promise as a receipt is."""
        stage, prefix = self.stage, self.stage.prefix_of[self.source]
        for number in range(OURS_FIRST, OURS_FIRST + OURS):
            name = f"{prefix}/N-{number}"
            values = json.dumps([{"index": 1, "type": "URL", "data": url_of(name, "ours"), "ttl": 60}])
            code, told = await stage.zaibei("register", "put", name, "--json-values", values, *stage.register_words())
            if code:
                raise ZaibeiError(Code.REFUSED, f"{name} was not registered here: {told}")
            self.ours[name] = "ours"
        line = [{"name": name, "text": text, "at_ns": time.monotonic_ns()} for name, text in self.ours.items()]
        octets = "".join(json.dumps(one) + "\n" for one in line)  # the node is dead: nobody else writes there
        for kind in ("acks", "receipts"):
            with (stage.told / f"{self.source}-{kind}.jsonl").open("a", encoding="utf-8") as file:
                file.write(octets)

    # ------------------------------------------------------------------------------------------------- back

    async def _revive(self) -> None:
        self.stage.cut(False)
        if self.stage.children["nodes"].process.poll() is not None:
            await self.stage.start("nodes")

    async def _return(self) -> None:
        if self.interrupted:
            await self._interrupted()
        elif self.zone_off:
            await self._zone_off()
        elif self.old_answers:
            await self._old_answers()
        else:
            await self.stage.ask(do="follow", node=self.source)
        await self.give_back(BACK_S_MAX)

    async def _interrupted(self) -> None:
        """Begun twice at once; our member dies while it waits for the node, and again while the node copies."""
        stage = self.stage
        begun = [asyncio.create_task(self.give_back(BACK_S_MAX)) for _ in range(2)]
        try:
            await self._until(self._looked, lambda row: row["stage"] in ON_THE_WAY, BACK_S_MAX)
            await self._restart_member()
            await self._until(self._looked, lambda row: bool(row["node"]["reached"]), BACK_S_MAX)
            await stage.ask(do="follow", node=self.source)
            await self._until(self._looked, lambda row: row["stage"] in PAST_WAITING, BACK_S_MAX)
            await self._restart_member()
            await asyncio.gather(*begun)
        finally:
            for one in begun:
                one.cancel()

    async def _old_answers(self) -> None:
        """The node copies what was registered here, and its resolver goes on with what it had; some seconds later it reads."""
        stage, facts, wrong, row = self.stage, self.acts, set[str](), dict[str, Any]()
        await stage.ask(do="stale", on=True)
        await stage.ask(do="follow", node=self.source)
        begun = asyncio.create_task(self.give_back(BACK_S_MAX))
        try:
            until = time.monotonic() + BACK_S_MAX
            ends = until
            while time.monotonic() < ends:
                row = await self._looked()
                if row["stage"] in AT_THE_NODE:
                    ends = min(ends, time.monotonic() + OLD_S) if ends == until else ends
                    wrong |= set(await facts.wrong_of(self.ours, stage.ports["recursive"]))
                await asyncio.sleep(LOOK_S)
            held = row["stage"] == Rung.ACCEPTED.name
            facts.fact("our sites stay", held, f"{OLD_S:.0f} s after the hand-back it stands at {row['stage']}")
            said = f"of {len(self.ours)} names {len(wrong)} were answered from before the takeover, {sorted(wrong)[:3]}"
            facts.fact("nobody is sent to old answers", not wrong, said)
            alarms = " ".join(row["alarms"])
            told = held and all(name in alarms for name in self.ours) and "let it read its new content" in alarms
            facts.fact("it says what differs", told, alarms or "nothing")
            await stage.ask(do="stale", on=False)
            await begun
        finally:
            begun.cancel()

    async def _zone_off(self) -> None:
        """The zone of whoever leads is off when the node has begun to copy; the two others bring it to its end."""
        stage, gone = self.stage, ""
        assert isinstance(stage, RegisteringCluster), "this act needs three members, and people who take over"

        async def begin() -> None:
            nonlocal gone
            gone = stage.leader()
            os.kill(stage.pid(gone), signal.SIGKILL)
            stage.up.remove(gone)
            await stage.gone(gone)

        async def heal() -> None:
            await stage.start(gone)
            stage.up.append(gone)
            await stage.whole()

        begun = asyncio.create_task(self.give_back(ZONE_OFF_S_MAX))
        try:
            await self._until(self._looked, lambda row: row["stage"] in ON_THE_WAY, BACK_S_MAX)
            await stage.ask(do="follow", node=self.source)
            row = await self._until(self._looked, lambda row: row["stage"] in (*PAST_WAITING, Rung.NORMAL.name), BACK_S_MAX)
            held = True if row["stage"] in PAST_WAITING else None
            async with Fault("the zone of the leading member is off", begin, heal, self.acts.log):
                self.acts.fact("in the middle of it", held, f"{gone} led, and died at {row['stage']}")
                await begun
                row = await self._looked()
                led = stage.leader()
                said = f"at {row['stage']}, led by {led}, while {gone} was away"
                self.acts.fact("two are enough", row["stage"] == Rung.NORMAL.name and led != gone, said)
        finally:
            begun.cancel()

    async def _looked(self) -> dict[str, Any]:
        return await self.stage.failback(self.source)

    async def _restart_member(self) -> None:
        os.kill(self.stage.pid("member"), signal.SIGKILL)
        await self.stage.gone("member")
        await self.stage.start("member")

    async def give_back(self, seconds: float) -> None:
        """Plan and run until the node registers again; both may be refused or fall to a restart, and are repeated."""
        stage, until = self.stage, time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(ZaibeiError):
                code, told = await stage.zaibei("failback", "plan", self.source, *stage.member_words())
                if code == 0:
                    words = ["failback", "run", self.source, "--plan", str(told["token"]), "--timeout", f"{seconds / 2:.0f}"]
                    await stage.zaibei(*words, *stage.member_words())
                if (await stage.failback(self.source))["stage"] == Rung.NORMAL.name:
                    return
            await asyncio.sleep(LOOK_S)

    async def _look_at_both(self) -> None:
        """After the return: what the ledger holds, and whether each side has what the other told its clients."""
        stage, facts = self.stage, self.acts
        row = await stage.failback(self.source)
        ledger = row["ledger"] or {}
        _, told = await stage.zaibei("failback", "conflicts", self.source, "--all", *stage.member_words())
        lines = {str(one["identifier"]).lower() for one in told.get("lines", ())}
        lacking = [name for name in self.own if name.lower() not in lines]
        whole = ledger.get("lines") == len(told.get("lines", ())) and len(lacking) == len(self.own) - self.unheld
        counts = {word: ledger.get(word) for word in ("lines", "entered", "kept", "same", "held", "open")}
        facts.fact(
            "the ledger has all of them", whole and bool(self.unheld),
            f"{self.unheld} of {len(self.own)} were not copied, {len(lines)} names have lines, {counts}",
        )  # fmt: skip
        wrong = await self._lacking_here()
        facts.fact(
            "none is lost", not wrong, f"{len(wrong)} of {len(self.own) + len(self.ours)} are not answered here, {wrong[:3]}"
        )
        wrong = await facts.wrong_of(self.own | self.ours, stage.ports["nodes"])
        facts.fact("the node has ours", not wrong, f"{len(wrong)} are not answered by the node, {wrong[:3]}")
        if self.interrupted or self.zone_off:
            epoch = Position.parse(str(row["position"])).epoch
            count = len(told.get("lines", ()))
            one = row["stage"] == Rung.NORMAL.name and epoch == self.epoch + EPOCHS and count == self.unheld
            said = f"{row['stage']} in epoch {epoch}, {self.epoch} before; {count} lines for {self.unheld} writes"
            facts.fact("one state", one, said)
        await stage.ask(do="pause", on=False)  # it registers again

    async def _lacking_here(self) -> list[str]:
        """Names that are not answered at our address; a member that came back a moment ago is given time to be whole."""
        until = time.monotonic() + (BACK_S_MAX if self.zone_off else 0)
        while True:
            wrong = await self.acts.wrong_of(self.own | self.ours)
            if not wrong or time.monotonic() > until:
                return wrong
            await asyncio.sleep(LOOK_S)

    @staticmethod
    async def _until(
        look: Callable[[], Awaitable[dict[str, Any]]], reached: Callable[[dict[str, Any]], bool], seconds: float
    ) -> dict[str, Any]:
        """Look until it holds or the time is over; what was seen last."""
        until, row = time.monotonic() + seconds, dict[str, Any]()
        while time.monotonic() < until:
            with suppress(ZaibeiError):
                row = await look()
                if reached(row):
                    return row
            await asyncio.sleep(LOOK_S)
        return row
