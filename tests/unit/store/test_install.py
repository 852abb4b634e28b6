"""Installing what came from another member: verified, beside, switched at once; whatever goes wrong, what was live stays so."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.transfer import KEPT_MANIFEST, Manifest
from replica.store import SourceStore, edge_install
from replica.store.edge_checkpoint import Checkpoint
from replica.store.edge_install import install
from replica.store.edge_manifest import MANIFEST
from tests.unit.store.conftest import World
from tests.unit.store.support import SOURCE, Group, Source, held, load, put, small_budget


def bring(taken: Checkpoint, fetched: Path, manifest: Manifest | None = None) -> None:
    """What a transfer does."""
    shutil.copytree(taken.folder, fetched)
    (fetched / KEPT_MANIFEST).write_bytes((manifest or taken.manifest).encode())


class Other:
    """Another member's store of the same source, some entries behind."""

    def __init__(self, folder: Path, log_of: Group, entries: int) -> None:
        self.folder, self.budget = folder / "other", small_budget(folder)
        self.store = SourceStore.open(self.folder, SOURCE, self.budget)
        for entry in log_of.log[:entries]:
            self.store.apply([entry])
        self.store.flush()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def restart(self) -> SourceStore:
        self.store.close()
        self.store = SourceStore.open(self.folder, SOURCE, self.budget)
        return self.store


@pytest.fixture
def lagging(granted: World, tmp_path: Path) -> Other:
    """The leader's store in `granted` has 3 batches, the other one 1."""
    for start in (0, 300, 600):
        granted.group.append(granted.source.cut([put(n) for n in range(start, start + 300)]))
    return Other(tmp_path, granted.group, 2)


def sound(other: SourceStore, source: Source) -> None:
    assert held(other) == source.content
    assert other.digest_at(source.head) == source.digest()


# ------------------------------------------------------------------------------------------------------------- installing
def test_a_running_store_takes_it_and_goes_on(granted: World, lagging: Other) -> None:
    taken = granted.store.checkpoint()
    bring(taken, lagging.store.fetching)
    seen = []
    lagging.store.subscribe(lambda state: seen.append(state.index))
    assert lagging.store.install() == (taken.index, taken.term) == lagging.store.applied()
    assert lagging.store.durable_applied() == taken.index and seen == [taken.index]
    sound(lagging.store, granted.source)
    granted.group.append(granted.source.cut([put(5_000)]))
    lagging.store.apply(granted.group.log[-1:])
    sound(lagging.store, granted.source)
    assert lagging.store.state().granted == granted.store.state().granted
    lagging.restart()
    assert lagging.names() == ["CURRENT", "gen-0.1"] and not (lagging.folder / "gen-0.1" / KEPT_MANIFEST).exists()
    assert lagging.store.applied()[0] == taken.index + 1
    sound(lagging.store, granted.source)


def test_again_and_again(granted: World, lagging: Other) -> None:
    for step in range(3):
        granted.group.append(granted.source.cut([put(7_000 + step)]))
        bring(granted.store.checkpoint(), lagging.store.fetching)
        lagging.store.install()
        sound(lagging.store, granted.source)
    lagging.restart()
    assert lagging.names() == ["CURRENT", "gen-0.3"]
    sound(lagging.store, granted.source)


def test_readers_go_on_and_the_old_copy_is_closed_after_the_last_one(granted: World, lagging: Other) -> None:
    old = held(lagging.store)
    reader = lagging.store.snapshot(b"s" * 16)
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            values, position = lagging.store.get_many([put(1).key])
            if values != [put(1).value] or position not in (old_head, granted.source.head):
                wrong.append((values, position))

    old_head = lagging.store.state().position
    readers = [threading.Thread(target=read) for _ in range(2)]
    for one in readers:
        one.start()
    bring(granted.store.checkpoint(), lagging.store.fetching)
    lagging.store.install()
    assert (lagging.folder / "gen-0").exists(), "a reader is on it"
    stop.set()
    for one in readers:
        one.join()
    assert wrong == [] and reader.digest.records == len(old)
    reader.close()
    lagging.restart()
    assert lagging.names() == ["CURRENT", "gen-0.1"]


@pytest.mark.parametrize("harm", ["absent", "no CURRENT", "damaged file", "another's CURRENT"])
def test_a_store_that_does_not_open_is_replaced(granted: World, lagging: Other, harm: str) -> None:
    lagging.store.close()
    if harm == "absent":
        shutil.rmtree(lagging.folder)
        lagging.folder.mkdir()
    elif harm == "no CURRENT":
        (lagging.folder / "CURRENT").unlink()
    elif harm == "damaged file":
        for path in (lagging.folder / "gen-0").glob("*.sst"):
            path.unlink()
    else:
        (lagging.folder / "CURRENT").write_text("rubbish")
    if harm != "absent":
        with pytest.raises(ZaibeiError):
            SourceStore.open(lagging.folder, SOURCE, lagging.budget)
    taken = granted.store.checkpoint()
    bring(taken, lagging.folder / "fetch")
    assert install(lagging.folder, SOURCE, lagging.budget) == taken.manifest
    lagging.store = SourceStore.open(lagging.folder, SOURCE, lagging.budget)
    assert lagging.store.applied() == (taken.index, taken.term)
    sound(lagging.store, granted.source)
    assert lagging.names() == ["CURRENT", lagging.store._live.rocks.folder.name]
    lagging.store.close()


# ------------------------------------------------------------------------------------------------------------- refusals
def flip(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(bytes(octets))


def largest(fetched: Path) -> Path:
    return max(fetched.glob("*.sst"), key=lambda path: path.stat().st_size)


HARMS: dict[str, tuple[Callable[[Path], object], Code]] = {
    "an octet differs": (lambda fetched: flip(largest(fetched)), Code.VERIFICATION_FAILED),
    "a file is missing": (lambda fetched: largest(fetched).unlink(), Code.VERIFICATION_FAILED),
    "a file too many": (lambda fetched: (fetched / "more.sst").write_bytes(b""), Code.VERIFICATION_FAILED),
    "a part is left": (lambda fetched: (fetched / ("0" * 64 + ".part")).write_bytes(b"x"), Code.VERIFICATION_FAILED),
    "a file is shorter": (lambda fetched: largest(fetched).write_bytes(b"x"), Code.VERIFICATION_FAILED),
    "no manifest": (lambda fetched: (fetched / KEPT_MANIFEST).unlink(), Code.NOT_FOUND),
    "half a manifest": (
        lambda fetched: (fetched / KEPT_MANIFEST).write_bytes((fetched / KEPT_MANIFEST).read_bytes()[:50]), Code.MALFORMED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_not_as_promised_is_never_installed(granted: World, lagging: Other, harm: str) -> None:
    before, at = held(lagging.store), lagging.store.applied()
    bring(granted.store.checkpoint(), lagging.store.fetching)
    act, code = HARMS[harm]
    act(lagging.store.fetching)
    with pytest.raises(ZaibeiError) as refused:
        lagging.store.install()
    assert refused.value.code is code
    assert (held(lagging.store), lagging.store.applied()) == (before, at)
    lagging.restart()
    assert (held(lagging.store), lagging.store.applied()) == (before, at)
    assert "fetch" in lagging.names()  # to be gone on with


MANIFESTS: dict[str, Callable[[Manifest], Manifest]] = {
    "another index": lambda made: replace(made, index=made.index + 1),
    "another term": lambda made: replace(made, term=made.term + 1),
    "another count": lambda made: replace(made, records=made.records + 1),
    "another sum": lambda made: replace(made, total="1"),
    "another generation": lambda made: replace(made, generation=made.generation + 1),
}


@pytest.mark.parametrize("lie", MANIFESTS)
def test_files_that_are_sound_but_not_what_the_manifest_says(granted: World, lagging: Other, lie: str) -> None:
    before = held(lagging.store)
    taken = granted.store.checkpoint()
    bring(taken, lagging.store.fetching, MANIFESTS[lie](taken.manifest))
    with pytest.raises(ZaibeiError) as refused:
        lagging.store.install()
    assert refused.value.code is Code.VERIFICATION_FAILED
    assert held(lagging.store) == before and "fetch" in lagging.names()


def test_a_checkpoint_of_another_source_or_kind(granted: World, lagging: Other) -> None:
    taken = granted.store.checkpoint()
    bring(taken, lagging.store.fetching, replace(taken.manifest, source="86.1000"))
    with pytest.raises(ZaibeiError) as refused:
        lagging.store.install()
    assert refused.value.code is Code.CONFLICT


def test_an_old_checkpoint_never_takes_a_store_back(granted: World, lagging: Other) -> None:
    taken = granted.store.checkpoint()
    granted.group.append(granted.source.cut([put(6_000)]))
    for entry in granted.group.log[lagging.store.applied()[0] :]:
        lagging.store.apply([entry])
    bring(taken, lagging.store.fetching)
    with pytest.raises(ZaibeiError) as refused:
        lagging.store.install()
    assert refused.value.code is Code.REFUSED
    sound(lagging.store, granted.source)


def test_one_at_the_same_entry_is_installed(granted: World, lagging: Other) -> None:
    """A member that forgot its promises in a group where nothing happens: it is fed what it has."""
    for entry in granted.group.log[lagging.store.applied()[0] :]:
        lagging.store.apply([entry])
    taken = granted.store.checkpoint()
    bring(taken, lagging.store.fetching)
    assert lagging.store.install() == (taken.index, taken.term)
    sound(lagging.store, granted.source)


# ------------------------------------------------------------------------------------------------------------- crashes
class Crash(Exception):
    """The process ends here."""


STEPS = ["link_files", "write_current", "remove_tree"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_leaves_the_old_or_the_new_one(
    granted: World, lagging: Other, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = granted.store.checkpoint()
    before, at = held(lagging.store), lagging.store.applied()
    bring(taken, lagging.store.fetching)
    real = getattr(edge_install, step)

    def dies(*arguments: object) -> None:
        if after:
            real(*arguments)
        raise Crash

    monkeypatch.setattr(edge_install, step, dies)
    with pytest.raises(Crash):
        lagging.store.install()
    monkeypatch.undo()
    crashed = lagging.folder.parent / "crashed"
    shutil.copytree(lagging.folder, crashed)  # what the disk holds; the process here only goes on to be closed
    found = SourceStore.open(crashed, SOURCE, small_budget(crashed.parent))
    if (step == "write_current" and after) or step == "remove_tree":
        assert found.applied() == (taken.index, taken.term)
        sound(found, granted.source)
    else:
        assert (held(found), found.applied()) == (before, at)
        assert found.install() == (taken.index, taken.term)  # the download is still there as it came
        sound(found, granted.source)
    found.close()
    again = SourceStore.open(crashed, SOURCE, small_budget(crashed.parent))
    sound(again, granted.source)
    again.close()


def test_a_crash_while_the_first_one_is_installed(granted: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store at all, and the installation dies before it was named: the download is there again, and nothing is served."""
    folder, budget = tmp_path / "new", small_budget(tmp_path)
    folder.mkdir()
    granted.group.append(granted.source.cut([put(1)]))
    bring(granted.store.checkpoint(), folder / "fetch")

    def dies(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(edge_install, "write_current", dies)
    with pytest.raises(Crash):
        install(folder, SOURCE, budget)
    monkeypatch.undo()
    crashed = tmp_path / "crashed"
    shutil.copytree(folder, crashed)
    empty = SourceStore.open(crashed, SOURCE, budget)
    assert empty.applied() == (0, 0) and (crashed / "fetch").exists()
    empty.close()


def test_a_disk_that_is_full_at_the_switch_changes_nothing(
    granted: World, lagging: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = granted.store.checkpoint()
    before = held(lagging.store)
    bring(taken, lagging.store.fetching)

    def full(*_: object) -> None:
        raise ZaibeiError(Code.DISK_FULL, "no room", retry=True)

    monkeypatch.setattr(edge_install, "write_current", full)
    with pytest.raises(ZaibeiError) as refused:
        lagging.store.install()
    assert refused.value.code is Code.DISK_FULL and held(lagging.store) == before
    monkeypatch.undo()
    lagging.store.apply([granted.group.log[lagging.store.applied()[0]]])  # it goes on
    assert "fetch" in lagging.names()


# ------------------------------------------------------------------------------------------------------------- side generations
async def staged(granted: World) -> tuple[ContentDigest, int, Checkpoint]:
    granted.group.append(granted.source.cut([put(n) for n in range(200)]))
    digest = granted.source.digest()
    granted.group.load_begin(1, digest.position)
    begun = len(granted.group.log)
    await load(granted.store, 1, dict(granted.source.content), digest)
    return digest, begun, granted.store.hold_side(1, begun)


async def test_a_fetched_generation_is_switched_to_like_ones_own(granted: World, tmp_path: Path) -> None:
    digest, begun, taken = await staged(granted)
    other = Other(tmp_path, granted.group, len(granted.group.log))
    bring(taken, other.store.fetching_side(1, begun))
    came = other.store.adopt_side(1, begun)
    assert came.digest == digest and came.manifest_hash == taken_load_hash(granted)
    assert other.store.adopt_side(1, begun) == came  # said twice
    granted.group.load_staged(1)
    granted.group.append(granted.source.cut([put(900)]), side=1)
    granted.group.load_switch(1, digest)
    other.store.apply(granted.group.log[other.store.applied()[0] :])
    sound(other.store, granted.source)
    assert other.store.state().generation == 1
    other.restart()
    sound(other.store, granted.source)
    assert other.names() == ["CURRENT", "gen-1"]
    other.store.close()


def taken_load_hash(granted: World) -> bytes:
    return sha256((granted.folder / "gen-1" / MANIFEST).read_bytes()).digest()


@pytest.mark.parametrize("happens", ["closed", "given up"])
async def test_a_fetched_generation_that_nobody_wants_any_more_is_not_named(granted: World, tmp_path: Path, happens: str) -> None:
    """Its files are hashed for minutes, in a thread that whoever asked cannot stop: that name may be another load's by then."""
    _, begun, taken = await staged(granted)
    other = Other(tmp_path, granted.group, len(granted.group.log))
    bring(taken, other.store.fetching_side(1, begun))

    def meanwhile(_: int) -> None:
        if happens == "closed" and not other.store._closed:
            other.store.close()
        elif happens == "given up" and other.store.state().side is not None:
            granted.group.load_abort(1)
            other.store.apply(granted.group.log[-1:])

    with pytest.raises(ZaibeiError) as refused:
        other.store.adopt_side(1, begun, meanwhile)
    assert refused.value.code is Code.CONFLICT and "gen-1" not in other.names()
    if happens == "given up":
        other.store.close()


async def test_a_member_that_comes_late_gets_both_and_switches(granted: World, tmp_path: Path) -> None:
    """A checkpoint taken while a load is under way, and the side generation as it stands now: opened, some entries further."""
    digest, begun, _ = await staged(granted)
    granted.group.load_staged(1)
    granted.group.append(granted.source.cut([put(901)]), side=1)
    live, side = granted.store.checkpoint(), granted.store.hold_side(1, begun)
    other = Other(tmp_path, granted.group, 1)
    bring(live, other.store.fetching)
    other.store.install()
    bring(side, other.store.fetching_side(1, begun))
    other.store.adopt_side(1, begun)
    granted.group.append(granted.source.cut([put(902)]), side=1)
    granted.group.load_switch(1, digest)
    other.store.apply(granted.group.log[other.store.applied()[0] :])
    sound(other.store, granted.source)
    assert other.store.state().generation == 1
    other.store.close()


async def test_an_install_keeps_the_side_generation_of_the_same_load_and_drops_another(granted: World, tmp_path: Path) -> None:
    _, begun, side = await staged(granted)
    other = Other(tmp_path, granted.group, len(granted.group.log))
    bring(side, other.store.fetching_side(1, begun))
    other.store.adopt_side(1, begun)
    granted.group.load_staged(1)
    other.store.apply(granted.group.log[-1:])  # opens it
    granted.group.append(granted.source.cut([put(903)]), side=1)
    bring(granted.store.checkpoint(), other.store.fetching)
    other.store.install()
    assert "gen-1" in other.names()
    granted.group.load_abort(1)
    bring(granted.store.checkpoint(), other.store.fetching)
    other.store.install()
    sound(other.store, granted.source)
    other.restart()
    assert "gen-1" not in other.names()
    other.store.close()


async def test_a_replayed_generation_is_refused(granted: World, tmp_path: Path) -> None:
    _, begun, taken = await staged(granted)
    other = Other(tmp_path, granted.group, len(granted.group.log))
    bring(taken, other.store.fetching_side(1, begun + 5))
    with pytest.raises(ZaibeiError) as refused:
        other.store.adopt_side(1, begun + 5)
    assert refused.value.code is Code.CONFLICT and "gen-1" not in other.names()
    files = tuple(line for line in taken.manifest.files if not line.name.startswith("MANIFEST-"))
    bring(taken, other.store.fetching_side(1, begun), replace(taken.manifest, files=files))
    for path in other.store.fetching_side(1, begun).glob("MANIFEST-*"):
        path.unlink()
    with pytest.raises(ZaibeiError) as incomplete:
        other.store.adopt_side(1, begun)
    assert incomplete.value.code is Code.VERIFICATION_FAILED and "gen-1" not in other.names()
    other.store.close()
