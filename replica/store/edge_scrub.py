"""Runs one scrub: files held still, a helper process of low priority that reads them, its word, and the files let go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

import msgspec

import replica
from replica.model.errors import Code, ZaibeiError
from replica.store.edge_checkpoint import NEVER_REWRITTEN
from replica.store.edge_disk import disk_error, remove_tree
from replica.store.edge_store import SourceStore
from replica.store.scrub import Scrubbed, ScrubJob, ScrubReply, judged

LOOK_S = 0.5  # how often it is looked whether the helper is to stop, or the disk is full
READ_OCTETS = 64 * 1024

_decode_reply = msgspec.json.Decoder(ScrubReply).decode  # made once: see state_row.py


def scrub(store: SourceStore, octets_s: int, stop: threading.Event, now_ms: Callable[[], int]) -> Scrubbed:
    """Read a store's live generation through, beside everything else. Blocks long: minutes or hours, in a thread of its own.

    Held files keep their room on the disk until the end, also when compaction replaced them: a scrub ends when room gets short.

    Args:
        octets_s: keys and values read in a second. stop: ends it early, within a second; it found UNKNOWN then.
    """
    begun = time.monotonic()
    mark, reply = "", ScrubReply()
    try:
        held = store.hold_still()
        mark = held.mark
        try:
            job = ScrubJob(str(held.folder), store.source, held.generation, octets_s)
            names = _large(held.folder)
            reply = _run(job, stop, lambda: store.room(0))
            if not names <= _large(held.folder):  # the store was opened anew, or put aside, meanwhile
                reply = ScrubReply(code=Code.CONFLICT.value, message="its files were taken away meanwhile")
        finally:
            remove_tree(held.folder)
    except ZaibeiError as exc:
        reply = ScrubReply(code=exc.code.value, message=exc.trouble.message)
    finding, text = judged(reply)
    took_ms = round((time.monotonic() - begun) * 1_000)
    return Scrubbed(now_ms(), finding, mark, reply.records, reply.octets, took_ms, text)


def _large(folder: Path) -> set[str]:
    """Names of the files that hold content."""
    try:
        return {name for name in os.listdir(folder) if name.endswith(NEVER_REWRITTEN)}
    except OSError:
        return set()


def _run(job: ScrubJob, stop: threading.Event, require_room: Callable[[], None]) -> ScrubReply:
    """Raises ZaibeiError: STOPPING, DISK_FULL, DISK_FAILED (it could not be started, or died)."""
    root = str(Path(replica.__file__).resolve().parents[1])
    paths = os.pathsep.join(path for path in (root, os.environ.get("PYTHONPATH", "")) if path)
    try:
        helper = subprocess.Popen(
            [sys.executable, "-m", "replica.store.edge_scrubber"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # a Ctrl-C meant for the member must not end it first
        )
    except OSError as exc:
        raise disk_error(exc, "starting the helper that reads a copy through") from exc
    with helper:
        try:
            if helper.stdin is None or helper.stdout is None:
                raise ZaibeiError(Code.DISK_FAILED, "the helper that reads a copy through has no pipes", retry=True)
            helper.stdin.write(msgspec.json.encode(job) + b"\n")
            helper.stdin.flush()
            line = _word(helper.stdout.fileno(), stop, require_room)
        except OSError as exc:
            raise disk_error(exc, "reading a copy through") from exc
        finally:
            if helper.poll() is None:
                helper.kill()
    if not line.endswith(b"\n"):
        message = f"the helper that reads the copy through ended with {helper.returncode}"
        raise ZaibeiError(Code.DISK_FAILED, message, retry=True)
    return _decode_reply(line)


def _word(out: int, stop: threading.Event, require_room: Callable[[], None]) -> bytes:
    """All that comes until the helper ends, taken as it comes: with a long word, that no pipe holds, it would else wait for ever.

    Raises ZaibeiError: STOPPING, DISK_FULL.
    """
    said = bytearray()
    with DefaultSelector() as waiting:
        waiting.register(out, EVENT_READ)
        while True:
            if waiting.select(LOOK_S):
                octets = os.read(out, READ_OCTETS)
                if not octets:
                    return bytes(said)
                said += octets
            if stop.is_set():
                raise ZaibeiError(Code.STOPPING, "stopped before its end", retry=True)
            require_room()
