"""A replicated register as simple as it can be and still right, to prove the runner with: `python -m tests.faults.standin
CONFIG.json`.

Each key is decided by CASPaxos: a proposer asks a majority to promise a ballot, takes the value of the highest ballot they
accepted, changes it and has a majority accept the result. No leader, no log. A member that finds that others remember more of
it than it does itself takes everything anew from all of them before it takes part. Source: Rystsov, CASPaxos: Replicated State
Machines without logs (2018).

`broken` turns one rule off, so that a scenario must find it:

| rule | what it does wrong |
| --- | --- |
| early | acknowledges once it has accepted itself, and tells the others later |
| obliging | who does not answer in time is not needed for a majority |
| unfenced | accepts what a proposer with an older ballot sends |
| volatile | begins with an empty disk at each start |
| unsynced | writes without fsync |
| limping | goes on after a failed fsync |
| forgetful | takes part although others remember more of it |
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

PEER_S_MAX = 0.4
TRIES_MAX = 12
FLOOR_STEP = 1_000
EARLY_S = 0.05
LINE_OCTETS_MAX = 1 << 24
Ballot = list[int]  # counter, member


class Disk:
    """Promises and accepted values, one line each with its checksum, synced before anything is answered."""

    def __init__(self, path: Path, *, synced: bool, limping: bool) -> None:
        self._path, self._synced, self._limping = path, synced, limping
        self.promised: dict[str, Ballot] = {}
        self.accepted: dict[str, tuple[Ballot, Any]] = {}
        self.floor, self.acts = 0, 0
        self._read()
        self._file = path.open("ab")

    def _read(self) -> None:
        good = 0
        with suppress(FileNotFoundError):
            for line in self._path.read_bytes().splitlines(keepends=True):
                checksum, _, body = line.partition(b" ")
                if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
                    break  # what follows is damaged or was never whole: others will know that it is missing
                good += len(line)
                self._take(json.loads(body))
            os.truncate(self._path, good)

    def _take(self, row: dict[str, Any]) -> None:
        self.acts = row["acts"]
        self.floor = max(self.floor, row.get("floor", 0))
        for key, (promised, accepted) in row.get("keys", {}).items():
            self.promised[key] = promised
            if accepted is not None:
                self.accepted[key] = (accepted[0], accepted[1])

    def write(self, **row: Any) -> None:
        """Raises OSError: it is not durable, and this process must end."""
        row["acts"] = self.acts + 1
        body = json.dumps(row).encode() + b"\n"
        try:
            self._file.write(b"%08x " % zlib.crc32(body) + body)
            self._file.flush()
            if self._synced:
                os.fsync(self._file.fileno())
        except OSError:
            if not self._limping:
                raise
        self._take(row)

    def promise_of(self, key: str) -> Ballot:
        return max(self.promised.get(key, [0, 0]), [self.floor, 0])


class Member:
    """Acceptor and proposer in one."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.number: int = config["number"]
        self.others: dict[int, tuple[str, int]] = {int(n): tuple(at) for n, at in config["others"].items()}
        self.broken: str = config.get("broken", "")
        self.majority = (len(self.others) + 1) // 2 + 1
        if self.broken == "volatile":
            (Path(config["data"]) / "register").unlink(missing_ok=True)
        self.disk = Disk(Path(config["data"]) / "register", synced=self.broken != "unsynced", limping=self.broken == "limping")
        self.heard: dict[int, int] = {}  # highest count of acts of each other member
        self.ready = not self.others
        self.amnesiac = False
        self.counter = self.disk.floor
        self._links: dict[int, Link] = {n: Link(at) for n, at in self.others.items()}
        self._turns: dict[str, asyncio.Lock] = {}

    # ------------------------------------------------------------------------------------------------------------- acceptor

    def asked(self, ask: dict[str, Any]) -> dict[str, Any]:
        """What another member (or this one) asks."""
        sender = ask["from"]
        if ask["what"] == "hello":
            return {"heard": self.heard.get(sender, 0), "ready": self.ready, "acts": self.disk.acts}
        if ask["what"] == "everything":
            keys = {
                key: [self.disk.promise_of(key), self.disk.accepted.get(key)]
                for key in {*self.disk.promised, *self.disk.accepted}
            }
            return {"ready": self.ready, "keys": keys, "floor": max(self.disk.floor, self.counter)}
        if ask["what"] == "begun":  # it has begun anew: what it knew before counts no more
            self.heard[sender] = ask["acts"]
            return {}
        if sender != self.number:
            self.heard[sender] = max(self.heard.get(sender, 0), ask["acts"])
        if not self.ready:
            return {"no": [0, 0]}
        key, ballot = ask["key"], ask["ballot"]
        self.counter = max(self.counter, ballot[0])
        promised = self.disk.promise_of(key)
        if ask["what"] == "prepare":
            if ballot <= promised:
                return {"no": promised, "acts": self.disk.acts}
            self.disk.write(keys={key: [ballot, None]})
            return {"accepted": self.disk.accepted.get(key), "acts": self.disk.acts}
        if ballot < promised and self.broken != "unfenced":
            return {"no": promised, "acts": self.disk.acts}
        self.disk.write(keys={key: [ballot, [ballot, ask["value"]]]})
        return {"acts": self.disk.acts}

    # ------------------------------------------------------------------------------------------------------------- proposer

    async def everybody(self, ask: dict[str, Any], enough: int) -> list[dict[str, Any]]:
        """Answers of a majority, as soon as there is one, or as many as came in time."""
        ask = {**ask, "from": self.number, "acts": self.disk.acts}
        answers = [self.asked(ask)]
        tasks = [asyncio.create_task(self._ask(number, ask)) for number in self.others]
        try:
            async with asyncio.timeout(PEER_S_MAX):
                for task in asyncio.as_completed(tasks):
                    if len(answers) >= enough:
                        break
                    answer = await task
                    if answer is not None:
                        answers.append(answer)
        except TimeoutError:
            pass
        return answers

    async def _ask(self, number: int, ask: dict[str, Any]) -> dict[str, Any] | None:
        answer = await self._links[number].ask(ask)
        if answer is not None and "acts" in answer and ask["what"] != "hello":
            self.heard[number] = max(self.heard.get(number, 0), answer["acts"])
        return answer

    async def change(self, ask: dict[str, Any]) -> dict[str, Any]:
        """One request of a client, to its end."""
        if not self.ready:
            return {"ok": False}
        key = ask["key"]
        async with self._turns.setdefault(key, asyncio.Lock()):
            for tried in range(TRIES_MAX):
                sent, found = await self._round(key, ask)
                if found is not None:
                    return found
                if sent and ask["op"] != "get":
                    return {"ok": None}
                await asyncio.sleep(random.random() * 0.02 * 2 ** min(tried, 4))
        return {"ok": False}

    async def _round(self, key: str, ask: dict[str, Any]) -> tuple[bool, dict[str, Any] | None]:
        """(a change may have been accepted somewhere, the answer if there is one)."""
        self.counter += 1
        ballot = [self.counter, self.number]
        answers = await self.everybody({"what": "prepare", "key": key, "ballot": ballot}, self.majority)
        promises = [answer for answer in answers if "no" not in answer]
        self._learn(answers)
        if len(promises) < self.enough(answers):
            return False, None
        accepted = [tuple(answer["accepted"]) for answer in promises if answer["accepted"]]
        value = max(accepted, key=lambda one: one[0])[1] if accepted else None
        after, found = decide(value, ask)
        accept = {"what": "accept", "key": key, "ballot": ballot, "value": after}
        if self.broken == "early":
            self.asked({**accept, "from": self.number})
            self.later = asyncio.get_running_loop().call_later(EARLY_S, self._tell, accept)
            return True, found
        answers = await self.everybody(accept, self.majority)
        self._learn(answers)
        if sum("no" not in answer for answer in answers) < self.enough(answers):
            return after != value, None
        return True, found

    def enough(self, answers: list[dict[str, Any]]) -> int:
        return min(self.majority, len(answers)) if self.broken == "obliging" else self.majority

    def _tell(self, accept: dict[str, Any]) -> None:
        self.telling = asyncio.create_task(self.everybody(accept, self.majority))

    def _learn(self, answers: list[dict[str, Any]]) -> None:
        self.counter = max(self.counter, *(answer.get("no", [0])[0] for answer in answers))

    # ------------------------------------------------------------------------------------------------------------- memory

    async def remember(self) -> None:
        """Before taking part: do all others remember no more of us than we do? Else take everything from all of them."""
        while not self.ready:
            answers = [await link.ask({"what": "hello", "from": self.number}) for link in self._links.values()]
            told = [answer for answer in answers if answer is not None]
            if len(told) < len(self.others):
                await asyncio.sleep(0.05)
                continue
            if self.broken in ("forgetful", "volatile") or (
                not self.amnesiac and all(answer["heard"] <= self.disk.acts for answer in told)
            ):
                self.ready = True
            else:
                self.amnesiac = True
                await self._begin_anew()

    async def _begin_anew(self) -> None:
        answers = [await link.ask({"what": "everything", "from": self.number}) for link in self._links.values()]
        told = [answer for answer in answers if answer is not None and answer["ready"]]
        if len(told) < len(self.others):
            await asyncio.sleep(0.05)
            return
        floor = max(self.disk.floor, *(answer["floor"] for answer in told)) + FLOOR_STEP
        keys: dict[str, list[Any]] = {}
        for answer in told:
            for key, (promised, accepted) in answer["keys"].items():
                held = keys.setdefault(key, [[0, 0], None])
                floor = max(floor, promised[0] + FLOOR_STEP)
                if accepted and (held[1] is None or accepted[0] > held[1][0]):
                    held[1] = accepted
        self.disk.write(keys=keys, floor=floor)
        self.counter = floor
        begun = {"what": "begun", "from": self.number, "acts": self.disk.acts}
        self.ready = None not in [await link.ask(begun) for link in self._links.values()]


def decide(value: Any, ask: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What a request makes of a value: the value after it, and the answer."""
    match ask["op"]:
        case "get":
            return value, {"ok": True, "out": value}
        case "append":
            held = value or []
            return (held if ask["v"] in held else [*held, ask["v"]]), {"ok": True}
        case "cas" if value != ask["wanted"]:
            return value, {"ok": False, "out": value}
    return ask["v"], {"ok": True}


class Link:
    """Requests to one other member over one connection; None for whatever did not come back."""

    def __init__(self, at: tuple[str, int], seconds: float = PEER_S_MAX) -> None:
        self._at, self._seconds = at, seconds
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._connecting = asyncio.Lock()

    async def ask(self, ask: dict[str, Any]) -> dict[str, Any] | None:
        self._number += 1
        number = self._number
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._seconds):
                async with self._connecting:
                    if self._writer is None:
                        reader, self._writer = await asyncio.open_connection(*self._at, limit=LINE_OCTETS_MAX)
                        self._task = asyncio.create_task(self._read(reader, self._writer))
                self._writer.write(json.dumps({**ask, "id": number}).encode() + b"\n")
                answer: dict[str, Any] = await future
                return answer
        except (OSError, TimeoutError, AttributeError):
            return None
        finally:
            self._waiting.pop(number, None)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError):
            while line := await reader.readline():
                answer = json.loads(line)
                future = self._waiting.get(answer.pop("id"))
                if future is not None and not future.done():
                    future.set_result(answer)
        writer.close()
        self._writer = None


async def serve(config: dict[str, Any]) -> None:
    """Run until something fails; a failed disk ends the process."""
    member = Member(config)
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def one(ask: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        try:
            if ask.get("op") == "status":
                answer = {"ready": member.ready, "amnesiac": member.amnesiac}
            else:
                answer = await member.change(ask) if "op" in ask else member.asked(ask)
            writer.write(json.dumps({**answer, "id": ask["id"]}).encode() + b"\n")
        except OSError as exc:
            if not failed.done():
                failed.set_exception(exc)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: set[asyncio.Task[None]] = set()
        with suppress(ConnectionError):
            while line := await reader.readline():
                task = asyncio.create_task(one(json.loads(line), writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        writer.close()

    for host, port in config["listen"]:
        await asyncio.start_server(connected, host, port, limit=LINE_OCTETS_MAX)
    remembering = asyncio.create_task(member.remember())
    await asyncio.wait([failed, remembering], return_when=asyncio.FIRST_COMPLETED)
    if remembering.done() and remembering.exception() is not None:
        remembering.result()
    await failed


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text())))
