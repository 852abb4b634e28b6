"""Fetching from a twin: interrupted anywhere it goes on; what is not as promised never gets a name."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from replica.model.errors import Code, ZaibeiError
from replica.model.progress import Progress
from replica.model.transfer import KEPT_MANIFEST, open_manifest
from replica.transfer.edge_fetch import Fetched, fetch
from replica.transfer.edge_metrics import TransferMetrics
from replica.transfer.memory import MemoryReading, MemorySender, describe
from replica.transfer.ports import Chunk
from tests.unit.transfer.support import QUICK, SOURCE, WANTED, ample, found_in, some_files

CHUNK = 7


def sender_of(files: dict[str, bytes], **named: int) -> MemorySender:
    return MemorySender(files, describe(files, SOURCE, **named), CHUNK)


def chunks_of(files: dict[str, bytes]) -> int:
    return sum(-(-len(octets) // CHUNK) for octets in files.values())


async def fetched(sender: MemorySender, folder: Path) -> Fetched:
    return await fetch(sender, WANTED, folder, ample, limits=QUICK)


async def test_all_files_come_as_they_are(tmp_path: Path) -> None:
    files, told = some_files(), list[Progress]()
    sender = sender_of(files)
    done = await fetch(sender, WANTED, tmp_path / "in", ample, limits=QUICK, report=told.append)
    assert found_in(tmp_path / "in") == files and done.fetched_octets == sender.sent == sum(map(len, files.values()))
    assert open_manifest((tmp_path / "in" / KEPT_MANIFEST).read_bytes()) == sender.manifest == done.manifest
    assert (told[-1].done, told[-1].total, told[-1].unit) == (sender.sent, sender.sent, "octets")
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert len(sender.released) == 1


async def test_a_second_fetch_asks_for_nothing(tmp_path: Path) -> None:
    files = some_files()
    await fetched(sender_of(files), tmp_path / "in")
    again = sender_of(files)
    await fetched(again, tmp_path / "in")
    assert again.sent == 0 and found_in(tmp_path / "in") == files


@pytest.mark.parametrize("cut", range(chunks_of(some_files())))
async def test_broken_at_every_chunk_it_goes_on_where_it_was(tmp_path: Path, cut: int) -> None:
    """The fetch dies with its stream (a crash); the next one fetches what is missing and nothing twice."""
    files, folder = some_files(), tmp_path / "in"
    sender = sender_of(files)
    sender.cut_after = cut
    with pytest.raises(ZaibeiError) as broke:
        await fetch(sender, WANTED, folder, ample, limits=replace(QUICK, rounds_max=1))
    assert broke.value.code is Code.UNREACHABLE and broke.value.trouble.retry
    half = found_in(folder)
    for name, octets in half.items():  # nothing half-served: under its own name a file is whole
        if not name.endswith(".part"):
            assert octets == files[name]
    sender.cut_after = None
    done = await fetched(sender, folder)
    assert found_in(folder) == files and done.manifest == sender.manifest
    assert sender.sent == sum(map(len, files.values())), "an octet was fetched twice"


@pytest.mark.parametrize("seed", range(20))
async def test_a_stream_that_breaks_all_the_time(tmp_path: Path, seed: int) -> None:
    chance, files = random.Random(seed), some_files(seed)
    sender = sender_of(files)

    class Flaky(MemorySender):
        async def offer(self, wanted):  # type: ignore[no-untyped-def]
            return await sender.offer(wanted)

        def reading(self, transfer: bytes):  # type: ignore[no-untyped-def]
            sender.cut_after = chance.randint(1, 4)
            if chance.random() < 0.2:
                sender.forget()
            return sender.reading(transfer)

    limits = replace(QUICK, rounds_max=20)
    done = await fetch(Flaky(files, sender.manifest, CHUNK), WANTED, tmp_path / "in", ample, limits=limits)
    assert found_in(tmp_path / "in") == files and done.rounds > 3
    assert sender.sent == sum(map(len, files.values())), "an octet was fetched twice"


async def test_cancelled_in_the_middle_it_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    files, folder = some_files(), tmp_path / "in"
    sender = sender_of(files)
    came = asyncio.Event()

    def tell(progress: Progress) -> None:
        if progress.done > 50:
            came.set()

    task = asyncio.create_task(fetch(sender, WANTED, folder, ample, limits=QUICK, report=tell))
    await came.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = sender.sent
    assert before > 0
    await fetched(sender, folder)
    assert found_in(folder) == files and sender.sent < 2 * sum(map(len, files.values()))


async def test_another_sender_with_other_names_for_the_same_content(tmp_path: Path) -> None:
    files, folder = some_files(), tmp_path / "in"
    first = sender_of(files)
    first.cut_after = 20
    with pytest.raises(ZaibeiError):
        await fetch(first, WANTED, folder, ample, limits=replace(QUICK, rounds_max=1))
    renamed = {(f"9{name}" if name.endswith(".sst") else name): octets for name, octets in files.items()}
    renamed["CURRENT"] = b"MANIFEST-000099\n"
    second = sender_of(renamed)
    await fetched(second, folder)
    assert found_in(folder) == renamed
    assert second.sent <= sum(map(len, renamed.values())) - first.sent + len(files["CURRENT"])


async def test_content_that_changes_names_in_a_circle(tmp_path: Path) -> None:
    files, folder = {"a.sst": b"1" * 30, "b.sst": b"2" * 30}, tmp_path / "in"
    await fetched(sender_of(files), folder)
    turned = {"a.sst": files["b.sst"], "b.sst": files["a.sst"]}
    second = sender_of(turned)
    await fetched(second, folder)
    assert found_in(folder) == turned and second.sent == 0


# ------------------------------------------------------------------------------------------------------ not as promised
def flipped(chunk: Chunk) -> Chunk:
    return replace(chunk, octets=bytes([chunk.octets[0] ^ 1]) + chunk.octets[1:])


async def test_a_wrong_octet_on_the_way_is_fetched_again(tmp_path: Path) -> None:
    files, registry = some_files(), CollectorRegistry()
    sender, metrics, count = sender_of(files), TransferMetrics(registry), 0

    def once(chunk: Chunk) -> Chunk:
        nonlocal count
        count += 1
        return flipped(chunk) if count == 5 else chunk

    sender.tamper = once
    await fetch(sender, WANTED, tmp_path / "in", ample, limits=QUICK, metrics=metrics)
    assert found_in(tmp_path / "in") == files
    assert registry.get_sample_value("zaibei_transfer_mismatches_total", {"source": SOURCE}) == 1


async def test_a_file_that_is_always_wrong_is_given_up_and_gets_no_name(tmp_path: Path) -> None:
    files, registry = some_files(), CollectorRegistry()
    sender = sender_of(files)
    sender.tamper = lambda chunk: flipped(chunk) if chunk.file == "000003.sst" else chunk
    with pytest.raises(ZaibeiError) as failed:
        await fetch(sender, WANTED, tmp_path / "in", ample, limits=QUICK, metrics=TransferMetrics(registry))
    assert failed.value.code is Code.VERIFICATION_FAILED and "000003.sst" in str(failed.value)
    assert "000003.sst" not in found_in(tmp_path / "in")
    labels = {"side": "fetch", "code": "verification_failed"}
    assert registry.get_sample_value("zaibei_transfer_refused_total", labels) == 1


TAMPERS = {
    "a gap": lambda chunk: replace(chunk, offset=chunk.offset + 1),
    "another file": lambda chunk: replace(chunk, file="CURRENT"),
    "a path": lambda chunk: replace(chunk, file="../../x"),
    "more than it has": lambda chunk: replace(chunk, octets=chunk.octets * 100),
    "nothing": lambda chunk: replace(chunk, octets=b""),
}


@pytest.mark.parametrize("what", TAMPERS)
async def test_chunks_nobody_asked_for(tmp_path: Path, what: str) -> None:
    files = some_files()
    sender = sender_of(files)
    sender.tamper = TAMPERS[what]
    with pytest.raises(ZaibeiError) as refused:
        await fetched(sender, tmp_path / "in")
    assert refused.value.code is Code.MALFORMED
    assert os.listdir(tmp_path) == ["in"]


async def test_another_transfer_than_was_asked_for(tmp_path: Path) -> None:
    files = some_files()
    for manifest in (describe(files, "86.1000"), describe(files, SOURCE, generation=2, begun=9)):
        with pytest.raises(ZaibeiError) as refused:
            await fetched(MemorySender(files, manifest), tmp_path / "in")
        assert refused.value.code is Code.MALFORMED
    with pytest.raises(ZaibeiError) as old:
        await fetch(sender_of(files, index=5), replace(WANTED, index_min=6), tmp_path / "in", ample, limits=QUICK)
    assert old.value.code is Code.MALFORMED and not (tmp_path / "in").exists()


async def test_no_room_nothing_fetched_nothing_touched(tmp_path: Path) -> None:
    files, asked = some_files(), list[int]()
    sender = sender_of(files)

    def full(octets: int) -> None:
        asked.append(octets)
        raise ZaibeiError(Code.DISK_FULL, "no room", retry=True)

    with pytest.raises(ZaibeiError) as refused:
        await fetch(sender, WANTED, tmp_path / "in", full, limits=QUICK)
    assert refused.value.code is Code.DISK_FULL and asked == [sum(map(len, files.values()))]
    assert sender.sent == 0 and not (tmp_path / "in").exists()


async def test_a_part_damaged_on_our_disk_is_found_by_its_hash(tmp_path: Path) -> None:
    files, folder = some_files(), tmp_path / "in"
    sender = sender_of(files)
    sender.cut_after = 12
    with pytest.raises(ZaibeiError):
        await fetch(sender, WANTED, folder, ample, limits=replace(QUICK, rounds_max=1))
    for path in folder.iterdir():
        if path.name != KEPT_MANIFEST and path.stat().st_size:
            path.write_bytes(b"\0" * path.stat().st_size)  # what a power cut may leave
    sender.cut_after = None
    await fetched(sender, folder)
    assert found_in(folder) == files
    assert all(hashlib.sha256((folder / line.name).read_bytes()).hexdigest() == line.sha256 for line in sender.manifest.files)


async def test_files_that_are_gone_are_asked_for_anew_unless_they_were_named(tmp_path: Path) -> None:
    files = some_files()
    sender = sender_of(files)
    sender.cut_after = 9
    real = sender.reading
    streams = 0

    def forgetful(transfer: bytes) -> AbstractAsyncContextManager[MemoryReading]:
        nonlocal streams
        streams += 1
        if streams == 2:
            sender.forget()
            sender.cut_after = None
        return real(transfer)

    sender.reading = forgetful  # type: ignore[method-assign]
    await fetched(sender, tmp_path / "in")
    assert found_in(tmp_path / "in") == files and sender.offers == 2
    named = replace(WANTED, transfer=b"?" * 16)
    with pytest.raises(ZaibeiError) as gone:
        await fetch(sender, named, tmp_path / "other", ample, limits=QUICK)
    assert gone.value.code is Code.NOT_FOUND and sender.offers == 2


async def test_a_sender_that_falls_silent(tmp_path: Path) -> None:
    files = some_files()
    sender = sender_of(files)

    class Silent(MemorySender):
        def reading(self, transfer: bytes):  # type: ignore[no-untyped-def]
            return Silence()

    with pytest.raises(ZaibeiError) as silent:
        limits = replace(QUICK, idle_s_max=0.05, rounds_max=2)
        await fetch(Silent(files, sender.manifest), WANTED, tmp_path / "in", ample, limits=limits)
    assert silent.value.code is Code.UNREACHABLE and "sent nothing" in str(silent.value)


class Silence:
    """A stream that takes everything and says nothing."""

    async def __aenter__(self) -> Silence:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def ask(self, file: str, offset: int) -> None:
        del file, offset

    async def credit(self, chunks: int) -> None:
        del chunks

    async def next(self) -> Chunk:
        await asyncio.sleep(60)
        raise AssertionError
