"""Golden dialogues between a source and the replica, one file per behaviour, run by the real sessions.

A line that begins with `> ` is something that happens; the lines below it are what was said and decided because of it. To accept
a change, run with FEED_STORIES=write and read the diff: commit it only when you understand what caused it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replica.feed.decision import HoldPlan, approval_octets, decision_entry
from replica.feed.limits import MS, FeedLimits
from replica.feed.meeting import grant_entry
from replica.model.batch import Change, columns_of, cut_batch
from replica.model.position import Position, epoch_start
from replica.v1 import entry_pb2, source_pb2
from tests.simulation.feed_world import LINEAGE, MEMBER_SIGNER, SOURCE_SIGNER, World, delete, key, put

FOLDER = Path(__file__).parent
STORIES = sorted(FOLDER.glob("*.txt"))
OPERATORS = {"an": MEMBER_SIGNER, "bo": SOURCE_SIGNER}


class Stage:
    """Carries out the commands of a story."""

    def __init__(self) -> None:
        self.world = World(7, limits=FeedLimits(gap_refetches_max=2))
        self._told = 0

    def do(self, line: str) -> list[str]:
        verb, *rest = line.split()
        getattr(self, "do_" + verb.replace("-", "_"))(*rest)
        news = self.world.history[self._told :]
        self._told = len(self.world.history)
        return news

    def do_write(self, *names: str) -> None:
        self.world.write(*[put(name) for name in names])

    def do_many(self, name: str, count: str) -> None:
        for start in range(0, int(count), 200):
            self.world.write(*[put(f"{name}{place:04}") for place in range(start, min(start + 200, int(count)))])

    def do_delete(self, *names: str) -> None:
        self.world.write(*[delete(name) for name in names])

    def do_delete_many(self, name: str, count: str) -> None:
        self.world.write(*[delete(f"{name}{place:04}") for place in range(int(count))])

    def do_write_bad(self, name: str) -> None:
        self.world.write(put(name), Change(1, key(name + "-BAD"), b"\x01\x00\x00"))

    def do_write_foreign(self, name: str) -> None:
        self.world.write(put(name), put("THEIRS", prefix="88.999"))

    def do_connect(self) -> None:
        self.world.connect()

    def do_run(self, steps: str) -> None:
        for _ in range(int(steps)):
            self.world.step()
            self.world.check()

    def do_cut(self) -> None:
        self.world.cut()

    def do_crash_member(self) -> None:
        self.world.crash_member()

    def do_forget(self) -> None:
        self.world.log.forget_before(self.world.log.head())

    def do_lose_batch(self) -> None:
        """The oldest batch on its way to the replica is lost."""
        lost = next(message for message in self.world.down if message.HasField("batch"))
        self.world.down.remove(lost)
        self.world.note("(a batch is lost)")

    def do_send(self) -> None:
        """The source says what it has to say; nothing is delivered yet."""
        world = self.world
        if world.source is not None:
            world.source_does(world.source.moved(world.log.head(), world.log.floor(), world.now))

    def do_repeat(self) -> None:
        """Everything on its way to the replica arrives twice."""
        self.world.down.extend(list(self.world.down))

    def do_rewind(self, seq: str, epoch: str = "") -> None:
        """Restored from a backup that ended at `seq` (of an earlier epoch)."""
        places = [place for place in self.world.log.boundaries if place[1] == int(seq) and epoch in ("", str(place[0]))]
        self.world.log.rewind(self.world.log.boundaries[max(places)])

    def do_back_in_epoch(self) -> None:
        """The source that has the granted epoch is there again."""
        granted = self.world.state().granted
        assert granted is not None
        self.world.log._at(granted)

    def do_own_epoch(self) -> None:
        """The source raises its epoch without being granted one."""
        head = self.world.log.head()
        self.world.log._at(epoch_start(head, LINEAGE, head.epoch + 1))

    def do_other_lineage(self) -> None:
        head = self.world.log.head()
        self.world.log._at(Position(b"\x22" * 16, head.epoch + 5, head.seq, head.chain))

    def do_ask_epoch(self, *reason: str) -> None:
        self.world.log.wanted = " ".join(reason)

    def do_operator_grants(self) -> None:
        """An operator looked at both sides and grants an epoch from the source's head."""
        world = self.world
        entry = grant_entry(world.state(), world.log.head(), LINEAGE, "looked at", MEMBER_SIGNER)
        self._commit(entry)

    def do_decide(self, what: str, *names: str) -> None:
        world = self.world
        hold = world.state().hold
        assert hold is not None
        plan = HoldPlan(world.state().source, hold, what == "release", 0, 0)
        approvals = [
            entry_pb2.Approval(operator=name, signature=OPERATORS[name].sign(approval_octets(plan.text()))) for name in names
        ]
        publics = {name: signer.public for name, signer in OPERATORS.items()}
        self._commit(decision_entry(plan, approvals, publics, world.wall_ms))

    def _commit(self, entry: entry_pb2.Entry) -> None:
        entry.format = 1
        self.world.journal.append((None, 0, entry.SerializeToString()))
        self.world.commit()

    def do_spoil_copy(self, name: str) -> None:
        """A record of the copy changes behind everyone's back."""
        self.world.store.content[key(name)] = b"\x01\x00\x00\x00\x00"
        self.world.content_at[self.world.state().position] = dict(self.world.store.content)

    def do_malformed_batch(self) -> None:
        """The source sends a batch whose hash does not fit its content."""
        head = self.world.log.head()
        batch = cut_batch("secondary-88-118", head, columns_of([put("X")]), 1, 0)
        self.world.down.append(source_pb2.SourceMessage(batch=batch.raw.replace(b"URL", b"URI")))

    def do_strange_batch(self) -> None:
        batch = cut_batch("somebody-else", self.world.log.head(), columns_of([put("X")]), 1, 0)
        self.world.down.append(source_pb2.SourceMessage(batch=batch.raw))

    def do_pause(self, milliseconds: str) -> None:
        """Both sides stand still (a suspended machine); the clock does not."""
        self.world.boot_ns += int(milliseconds) * MS
        self.world.wall_ms += int(milliseconds)

    def do_pressure(self, on: str) -> None:
        self.world.pressure = on == "on"

    def do_busy(self, count: str) -> None:
        self.world.busy = int(count)

    def do_hold_jobs(self, on: str) -> None:
        self.world.hold_jobs = on == "on"

    def do_age(self) -> None:
        lag = self.world.age.lag(self.world.boot_ns)
        age = self.world.age.age_ms(self.world.boot_ns)
        within = "unknown" if age is None else next(f"<= {limit} ms" for limit in (1_000, 2_000, 300_000, 10**9) if age <= limit)
        self.world.note(f"age {within}, lag {'UNKNOWN' if lag.changes is None else lag.changes}")

    def do_show(self) -> None:
        state = self.world.state()
        session, head = self.world.session, self.world.log.head()
        held = f", holds {state.hold.ident}" if state.hold else ""
        code = f" ({state.feed_code})" if state.feed_code else ""
        self.world.note(
            f"feed {state.feed.name}{code} at {state.position.epoch}/{state.position.seq}, {state.records} records, "
            f"{state.quarantined} quarantined{held}; "
            f"stream {session.phase.value if session else 'none'}; source at {head.epoch}/{head.seq}"
        )


def play(text: str) -> str:
    """The story with what the sessions really said."""
    stage, out = Stage(), []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            out.append(line)
        elif line.startswith("> "):
            out.append(line)
            out.extend("    " + news for news in stage.do(line[2:]))
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    text = path.read_text()
    told = play(text)
    if os.environ.get("FEED_STORIES") == "write":
        path.write_text(told)
    assert told == text


def test_there_are_stories() -> None:
    assert len(STORIES) >= 20
