"""A process that writes to a journal as fast as it may and reports what was acknowledged. test_journal_power.py judges it.

Usage: python -m tests.integration.journal_child FOLDER GROUPS ENTRY_OCTETS [forgetful]
Prints a line for each acknowledgement: `ack GROUP INDEX TOKEN MONOTONIC_NS`, and for changes: `admitted`, `refused CODE`,
`stop CODE` (from the journal to its process), `failed CODE` (a writer gives up).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from pathlib import Path

from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_disk import DiskLimits
from replica.consensus.edge_journal import Journal, JournalLimits
from replica.consensus.edge_rows import JournalRows
from replica.consensus.group import GroupLog
from replica.consensus.group_limits import GroupLimits
from replica.model.errors import Code, ZaibeiError
from tests.shim.shim import token
from tests.unit.consensus.machines import ListMachine

IN_FLIGHT = 4
LIMITS = JournalLimits(room_check_s=0.02, mark_idle_s=0.05, disk=DiskLimits(0, 0, 1_000_000))


class ForgetfulRows(JournalRows):
    """The planted fault: a flush that does nothing."""

    def flush(self) -> None:
        """Says it is on disk."""


class ForgetfulJournal(Journal):
    rows_type = ForgetfulRows


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def writer(group: GroupLog, numbers: itertools.count[int], octets: int) -> None:
    while True:
        number = next(numbers)
        try:
            index = await group.propose(token(number) + bytes(octets) + token(number)).committed
        except ZaibeiError as exc:
            if exc.code is Code.DISK_FAILED:
                say("failed", exc.code)
                return
            await asyncio.sleep(0.005)
        else:
            say("ack", group.group, index, number, time.monotonic_ns())


async def prober(group: GroupLog) -> None:
    """Says when admission changes, as a caller sees it."""
    last = ""
    while True:
        try:
            group.propose(b"probe")
            now = "admitted"
        except ZaibeiError as exc:
            now = f"refused {exc.code}"
        if now != last:
            say(now)
            last = now
        await asyncio.sleep(0.01)


async def main(folder: Path, groups: int, octets: int, forgetful: bool) -> None:
    kind = ForgetfulJournal if forgetful else Journal
    journal, apply = kind.open(folder, limits=LIMITS, on_failed=lambda error: say("stop", error.code)), ApplyThread()
    apply.start()
    logs = [
        GroupLog(f"g{number}", journal, ListMachine(), apply, limits=GroupLimits(flush_octets=2**60)) for number in range(groups)
    ]
    for log in logs:
        await log.start()
    say("started")
    numbers = itertools.count(1)
    probing = asyncio.create_task(prober(logs[0]))
    await asyncio.gather(*(writer(log, numbers, octets) for log in logs for _ in range(IN_FLIGHT)))
    probing.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "forgetful" in sys.argv[4:]))
