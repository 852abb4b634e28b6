"""Watching files: read at rest, compared as a whole, never mistaken for empty (SEMANTICS 12)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replica.agent import edge_files
from replica.agent.edge_content import Content
from replica.agent.edge_files import FileReader, InputState, inputs_of
from replica.agent.mapping import Naming
from replica.agent.retention import Spool
from replica.model.errors import ZaibeiError
from tests.unit.agent.helpers import Turned, grant, key, opened


def lines(*names: str, text: str = "x") -> str:
    return "".join(
        json.dumps({"handle": f"88.118.8/{name}", "values": [{"index": 1, "type": "URL", "data": text}]}) + "\n" for name in names
    )


class Watched:
    """One file, its reader and a clock."""

    def __init__(self, folder: Path, spool: Spool | None = None) -> None:
        self.folder, self.spool = folder, spool
        self.path = folder / "registry.jsonl"
        self.clock = Turned()
        self.start()

    def start(self) -> None:
        self.log = opened(self.folder, spool=self.spool)
        self.reader = FileReader(
            self.log, inputs_of([self.path]), Naming.of(("88.118",)), self.folder, rest_s=2.0, now_s=lambda: self.clock.now_s
        )

    def restart(self) -> None:
        self.log.close()
        self.start()

    def settle(self) -> tuple[int, int, int] | None:
        self.reader.poll()
        self.clock.now_s += 2.5
        done = self.reader.poll()
        return done and (done.puts, done.deletes, done.rejects)

    def names(self) -> set[bytes]:
        keys = [key(name) for name in "ABCDEFGH"]
        return set(self.log.content.values_of(keys))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.log.close()


def test_a_full_difference_with_deletes(watched: Watched) -> None:
    watched.path.write_text(lines("A", "B", "C"))
    assert watched.settle() == (3, 0, 0)
    watched.path.write_text(lines("B", "D") + lines("C", text="new"))
    assert watched.settle() == (2, 1, 0)
    assert watched.names() == {key("B"), key("C"), key("D")}
    assert watched.reader.state is InputState.CURRENT
    assert watched.settle() is None


def test_a_file_is_read_only_at_rest(watched: Watched) -> None:
    """A half-written file would look like a mass delete."""
    watched.path.write_text(lines("A", "B"))
    for number in range(5):
        watched.clock.now_s += 1.0
        with watched.path.open("a") as file:
            file.write(lines("CDEFG"[number]))
        assert watched.reader.poll() is None
        assert watched.reader.state is InputState.SETTLING
    watched.clock.now_s += 2.5
    done = watched.reader.poll()
    assert done is not None and done.puts == 7


def test_what_changed_while_it_was_read_does_not_count(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.path.write_text(lines("A", "B"))
    stage = FileReader._stage

    def stage_and_write(self: FileReader, *rest: object) -> int | None:
        done = stage(self, *rest)  # type: ignore[arg-type]
        watched.path.write_text(lines("A"))
        return done

    monkeypatch.setattr(FileReader, "_stage", stage_and_write)
    assert watched.settle() is None
    assert not watched.names()
    monkeypatch.undo()
    assert watched.settle() == (1, 0, 0)


def test_a_missing_file_is_no_empty_registry(watched: Watched) -> None:
    watched.path.write_text(lines("A", "B"))
    watched.settle()
    watched.path.unlink()
    assert watched.settle() is None
    assert watched.reader.state is InputState.MISSING
    assert watched.names() == {key("A"), key("B")}
    watched.path.write_text(lines("A"))
    assert watched.settle() == (0, 1, 0)


def test_bad_lines_are_written_down_and_the_rest_flows(watched: Watched) -> None:
    watched.path.write_text(lines("A", "B"))
    watched.settle()
    bad_b = json.dumps({"handle": "88.118.8/B", "values": []})
    watched.path.write_text(lines("A", "C", "C") + "not json\n" + bad_b + "\n\n" + "y" * 1_100_000 + "\n" + lines("D"))
    assert watched.settle() == (2, 0, 4)
    assert watched.names() == {key(name) for name in "ABCD"}  # B: its line is bad, so what is held stays
    rejects = [json.loads(text) for text in (watched.folder / "rejects.jsonl").read_text().splitlines()]
    assert [(reject["line"], reject["reason"].split(":")[0]) for reject in rejects] == [
        (4, "not JSON"),
        (5, "a record needs a value"),
        (7, "the line is longer than 1048576 octets"),
        (3, "the same name as in line 2"),
    ]
    assert {reject["file"] for reject in rejects} == {str(watched.path)}


def test_a_restart_reads_only_what_changed(watched: Watched) -> None:
    watched.path.write_text(lines("A"))
    watched.settle()
    watched.restart()
    assert watched.settle() is None
    assert watched.reader.state is InputState.CURRENT
    watched.log.close()
    watched.path.write_text(lines("B"))
    watched.start()
    assert watched.settle() == (1, 1, 0)


def test_a_csv_without_its_columns_is_refused_with_words(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("code,name\n1,2\n")
    log = opened(tmp_path)
    reader = FileReader(log, inputs_of([path]), Naming.of(("88.118",)), tmp_path, rest_s=0.0)
    with pytest.raises(ZaibeiError, match="needs the columns handle, index, type, data, ttl"):
        reader.poll()
    log.close()


def test_a_shrunken_file_goes_out_with_a_warning(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.path.write_text(lines(*[f"N{number}" for number in range(400)]))
    watched.settle()
    watched.path.write_text(lines("N0"))
    assert watched.settle() == (0, 399, 0)
    assert "large share" in caplog.text


def test_trouble_that_stays_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "r.csv"
    path.write_text("code,name\n1,2\n")
    log = opened(tmp_path)
    reader = FileReader(log, inputs_of([path]), Naming.of(("88.118",)), tmp_path, rest_s=0.0)
    for _ in range(5):
        _poll_as_run_does(reader)
    assert reader.state is InputState.UNUSABLE
    assert told(caplog) == 1
    path.write_text("handle,index,type,data,ttl\n88.118.8/A,1,URL,x,60\n")
    _poll_as_run_does(reader)
    assert reader.state is InputState.CURRENT
    path.write_text("code,name\n1,2\n")
    _poll_as_run_does(reader)
    assert told(caplog) == 2
    log.close()


def told(caplog: pytest.LogCaptureFixture) -> int:
    return sum("needs the columns" in str(getattr(record, "reason", "")) for record in caplog.records)


def _poll_as_run_does(reader: FileReader) -> None:
    """One turn of `run`: it returns when the wait for the next look is cut short."""
    reader._stop.wait = lambda _s=None: reader._stop.set() or True  # type: ignore[method-assign, assignment, func-returns-value]
    reader._stop.clear()
    reader.run()
    reader._stop.clear()


async def test_a_full_spool_stops_the_reading_and_drops_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path, Spool(octets_max=3_000, keep_octets=0))
    await watched.log.accept_grant(grant(watched.log.head()))
    watched.path.write_text(lines("A", text="x" * 4_000))
    assert watched.settle() == (1, 0, 0)
    watched.path.write_text(lines("A", "B"))
    watched.reader.agent.wait_room = lambda _: watched.reader.stop() or False  # type: ignore[method-assign,func-returns-value]
    assert watched.settle() is None
    assert watched.reader.state is InputState.SPOOL_FULL
    assert "wait for a receipt" in watched.reader.state_reason
    assert watched.names() == {key("A")}
    watched.log.close()


def no_room(folder: Path) -> Path:
    (folder / "rejects.new").symlink_to("/dev/full")
    return folder / "rejects.new"


def no_file(folder: Path) -> Path:
    (folder / "staging.db").mkdir()
    return folder / "staging.db"


def came_to(watched: Watched, state: InputState, reading: threading.Thread) -> bool:
    until = time.monotonic() + 10
    while watched.reader.state is not state and reading.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    return watched.reader.state is state


@pytest.mark.parametrize(("hinders", "why"), [(no_room, "rejects.jsonl: [Errno 28] No space"), (no_file, "staging.db")])
def test_a_disk_that_fails_for_a_moment_ends_no_reading_for_good(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, hinders: Callable[[Path], Path], why: str
) -> None:
    """No room for the list of what was left out, or no file can be made: a state, tried again; the reader's thread goes on."""
    monkeypatch.setattr(edge_files, "RETRY_S", 0.01)
    monkeypatch.setattr(edge_files, "POLL_S", 0.01)
    hindrance = hinders(watched.folder)
    watched.path.write_text(lines("A") + "no record\n")
    watched.reader.rest_s = 0.0
    reading = threading.Thread(target=watched.reader.run)
    reading.start()
    try:
        assert came_to(watched, InputState.UNUSABLE, reading) and why in watched.reader.state_reason
        hindrance.rename(hindrance.with_name("moved"))
        assert came_to(watched, InputState.CURRENT, reading) and watched.names() == {key("A")}
    finally:
        watched.reader.stop()
        reading.join()


def test_what_was_read_is_noted_in_turn_with_every_other_writer(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Housekeeping and grants write over the same connection: a second transaction on it fails, and undoes the first."""
    note, in_turn = Content.note, list[bool]()

    def noted(content: Content, name: str, value: str) -> None:
        in_turn.append(watched.log._turn.locked())
        note(content, name, value)

    monkeypatch.setattr(Content, "note", noted)
    watched.path.write_text(lines("A"))
    assert watched.settle() == (1, 0, 0)
    assert in_turn == [True]
