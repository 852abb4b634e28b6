"""Imports a file row by row over one stream after another; stopped at any moment it goes on where it was.

Beside FILE lie `FILE.rejected.jsonl`, a line a row that was left out, and `FILE.progress` until all is done. A part of rows is
decided before it is noted, so a part that was cut off is sent again: with the same values that changes nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec

from hosting.tenant.bulk import Progress, Rejected, Row, progress_of, rows_of
from hosting.tenant.edge_client import Done, Found, Put
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.handle.values import encode_values
from replica.model.precondition import ABSENT, NOTHING

PART_ROWS = 5_000
PAUSE_S = 0.2  # before rows are sent again that were refused for the moment
READ_OCTETS = 1024 * 1024
LATER = frozenset({Code.BUSY, Code.OVER_QUOTA, Code.NOT_LEADER, Code.UNREACHABLE, Code.STOPPING})


class Registrar(Protocol):
    """What an import needs of a client; RegistrationClient satisfies it."""

    async def put_many(self, changes: Sequence[Put], *, at_once: int = 1_000) -> list[Done]: ...

    async def get(self, identifiers: Sequence[str], *, stale: bool = False) -> list[Found]: ...


class Import:
    """One file.

    Args:
        client: None: a dry run, which judges rows as far as can be told without the registry, and writes rejected rows alone.
        absent: register only what is not there; a name with these very values counts as done.
        patience_s: how long a part may be refused for the moment (over a rate, without a leader) before the import stops.
    """

    def __init__(
        self,
        path: Path,
        form: str,
        client: Registrar | None,
        *,
        absent: bool = False,
        patience_s: float = 60.0,
        part: int = PART_ROWS,
        told: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.path, self._form, self._client, self._absent = path, form, client, absent
        self._patience_s, self._part, self._told = patience_s, part, told
        self.rejected_path = path.with_name(path.name + ".rejected.jsonl")
        self.progress_path = path.with_name(path.name + ".progress")

    async def run(self) -> Progress:
        """Until the file ends.

        Raises:
            ZaibeiError: MALFORMED (no such header), or why no more rows can be sent now; what was noted so far stays.
            OSError: a file cannot be read or written.
        """
        progress = self._begin()
        try:
            with self.path.open("r", encoding="utf-8", errors="surrogateescape", newline="") as lines:
                rows = (one for one in rows_of(lines, self._form) if one.number > progress.rows)
                part = list(islice(rows, self._part))
                while part:  # the next one is read while this one is under way
                    following = asyncio.create_task(asyncio.to_thread(lambda: list(islice(rows, self._part))))
                    try:
                        progress = await self._one(part, progress)
                    finally:
                        await asyncio.wait({following})
                    self._told(progress)
                    part = following.result()
        except ValueError as exc:
            raise ZaibeiError(Code.MALFORMED, f"{self.path.name}: {exc}") from None
        self.progress_path.unlink(missing_ok=True)
        if not progress.rejected:
            self.rejected_path.unlink(missing_ok=True)
        return progress

    def _begin(self) -> Progress:
        with self.path.open("rb") as file:
            summed = sha256()
            while octets := file.read(READ_OCTETS):
                summed.update(octets)
            size = file.tell()
        octets = self.progress_path.read_bytes() if self._client is not None and self.progress_path.exists() else b""
        progress = progress_of(octets, summed.hexdigest(), size)
        with self.rejected_path.open("ab") as file:
            file.truncate(progress.rejected_octets)  # lines of a part that was not noted come again
        return progress

    async def _one(self, part: list[Row | Rejected], progress: Progress) -> Progress:
        faults = [one for one in part if isinstance(one, Rejected)]
        rows = [one for one in part if isinstance(one, Row)]
        if self._client is not None and rows:
            faults += await self._send(self._client, rows)
        faults.sort(key=lambda one: one.number)
        with self.rejected_path.open("ab") as file:
            file.write(b"".join(one.line() for one in faults))
            file.flush()
            os.fsync(file.fileno())
            octets = file.tell()
        progress = msgspec.structs.replace(
            progress,
            rows=part[-1].number,
            done=progress.done + len(part) - len(faults),
            rejected=progress.rejected + len(faults),
            rejected_octets=octets,
        )
        if self._client is not None:
            fresh = self.progress_path.with_name(self.progress_path.name + ".new")
            with fresh.open("wb") as file:
                file.write(msgspec.json.encode(progress))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.progress_path)
        return progress

    async def _send(self, client: Registrar, rows: list[Row]) -> list[Rejected]:
        """Rows that were refused for good. Raises ZaibeiError: the others cannot be decided now."""
        loop, need = asyncio.get_running_loop(), ABSENT if self._absent else NOTHING
        end, refused = loop.time() + self._patience_s, []
        while rows:
            done = await client.put_many([Put(one.identifier, one.values, need) for one in rows])
            again, why = [], None
            for one, outcome in zip(rows, done, strict=True):
                trouble = outcome.trouble or Trouble(Code.UNKNOWN, "no outcome", definite=False)
                if outcome.ok:
                    continue
                if outcome.ok is None or (trouble.retry and trouble.code in LATER):
                    again.append(one)  # not known: the same values again change nothing
                    why = trouble
                else:
                    refused.append((one, trouble))
            if len(again) < len(rows):
                end = loop.time() + self._patience_s  # it goes on, however slowly
            if again and why is not None:
                if loop.time() >= end:
                    raise ZaibeiError(
                        why.code, f"row {again[0].number} and on: {why.message}. Run it again: it goes on", retry=True
                    )
                await asyncio.sleep(PAUSE_S)
            rows = again
        there = await self._there(client, [one for one, trouble in refused if trouble.code is Code.CONFLICT])
        return [
            Rejected(one.number, trouble.code.value, trouble.message, one.identifier)
            for one, trouble in refused
            if one.number not in there
        ]

    async def _there(self, client: Registrar, rows: list[Row]) -> set[int]:
        """Of rows that had to be absent and were not: those that are there with these very values."""
        there: set[int] = set()
        for part in _parts(rows, 500):
            found = await client.get([one.identifier for one in part])
            there |= {row.number for row, one in zip(part, found, strict=True) if encode_values(one.values) == row.values}
        return there


def _parts(rows: list[Row], size: int) -> Iterator[list[Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
