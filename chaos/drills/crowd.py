"""The honest few of a flood, as a process: `python -m chaos.drills.crowd CONFIG.json`.

Each lookup goes over UDP once; when no answer came within UDP_S, or 2 did, over TCP, as deployed resolvers do. It succeeds when
the right record is there within PATIENCE_S, the patience of a standard client.

Config (JSON): port, names = {name: URL}, seed.

| command, a JSON line | what it does |
| --- | --- |
| {"do": "begin", "per_s": 1000} | asks at this rate |
| {"do": "end"} | asks no more, waits for what is under way, and says what became of all |
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hosting.client.lookup import Question
from hosting.client.wire import encode_question
from replica.model.handle.stream import Deframer
from replica.native import Datagrams, pack_address

HOST: Final = "127.0.0.1"
ID_AT, CODE_AT = slice(8, 12), 27  # of a Handle message
FOUND, TRY_ANOTHER = 1, 2
UDP_S, PATIENCE_S = 0.3, 3.0
TICK_S: Final = 0.005
BATCH: Final = 256
CONNECT_S_MAX: Final = 1.0
AGAIN_S: Final = 0.05
OCTETS_MAX: Final = 65_536


@dataclass(slots=True)
class Told:
    """What became of lookups. lies: a final answer that was not the record; late_ms: how late this very process was, the most."""

    asked: int = 0
    right: int = 0
    over_tcp: int = 0
    lies: int = 0
    failed: int = 0
    worst_ms: float = 0.0
    late_ms: float = 0.0


@dataclass(slots=True)
class _Open:
    name: int
    began_s: float
    streamed: bool = False


class Crowd:
    """See the module."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._names = [(encode_question(Question(name), 0), url.encode()) for name, url in config["names"].items()]
        self._dice = random.Random(config["seed"])
        self._port = int(config["port"])
        self._open: dict[int, _Open] = {}
        self._over_udp: deque[int] = deque()  # by age
        self._patient: deque[int] = deque()  # by age
        self._again_s = 0.0  # no new connection before
        self._next = 1
        self._stream: socket.socket | None = None
        self._deframer = Deframer()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.told = Told()

    def begin(self, per_s: float) -> dict[str, Any]:
        self._thread = threading.Thread(target=self._run, args=(per_s,), daemon=True)
        self._thread.start()
        return {"begun": True}

    def end(self) -> dict[str, Any]:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        told = self.told
        return {name: getattr(told, name) for name in Told.__slots__}

    def _run(self, per_s: float) -> None:
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        endpoint.setblocking(False)
        endpoint.bind((HOST, 0))
        wire, peer = Datagrams(endpoint.fileno(), BATCH, 2_048), pack_address(HOST, self._port)
        began = last = time.monotonic()
        while not self._over.is_set() or self._open:
            select.select([endpoint, *([self._stream] if self._stream is not None else [])], [], [], TICK_S)
            now = time.monotonic()
            self.told.late_ms = max(self.told.late_ms, (now - last - TICK_S) * 1_000)
            last = now
            with suppress(OSError):
                for octets, _ in wire.receive():
                    self._answer(octets, now)
            self._read_stream(now)
            if not self._over.is_set():
                due = min(int((now - began) * per_s) - self.told.asked, BATCH)
                with suppress(OSError):
                    wire.send([(self._ask(now), peer) for _ in range(due)])
            self._go_on(now)
        wire.close()
        endpoint.close()
        self._hang_up()

    def _ask(self, now: float) -> bytes:
        name, number = self._dice.randrange(len(self._names)), self._next
        self._next = number % 0x7FFF_FFFF + 1
        self._open[number] = _Open(name, now)
        self._over_udp.append(number)
        self._patient.append(number)
        self.told.asked += 1
        return self._request(number, name)

    def _request(self, number: int, name: int) -> bytes:
        octets = self._names[name][0]
        return octets[: ID_AT.start] + number.to_bytes(4, "big") + octets[ID_AT.stop :]

    def _answer(self, octets: bytes, now: float) -> None:
        number = int.from_bytes(octets[ID_AT], "big")
        one = self._open.get(number)
        if one is None or len(octets) <= CODE_AT:
            return
        if octets[CODE_AT] == TRY_ANOTHER:
            if not one.streamed:
                self._over_tcp(number, one)
            return  # over TCP too the site cannot say: nobody else is asked here, so it will have failed
        del self._open[number]
        if octets[CODE_AT] == FOUND and self._names[one.name][1] in octets:
            self.told.right += 1
            self.told.worst_ms = max(self.told.worst_ms, (now - one.began_s) * 1_000)
        else:
            self.told.lies += 1

    def _go_on(self, now: float) -> None:
        """What waits for too long over UDP is asked over TCP; what waits for too long at all has failed."""
        while self._patient and (number := self._patient[0]):
            one = self._open.get(number)
            if one is not None and now - one.began_s < PATIENCE_S:
                break
            self._patient.popleft()
            if one is not None:
                del self._open[number]
                self.told.failed += 1
        while self._over_udp and now >= self._again_s:
            number = self._over_udp[0]
            one = self._open.get(number)
            if one is not None and now - one.began_s < UDP_S:
                break
            self._over_udp.popleft()
            if one is not None and not one.streamed:
                self._over_tcp(number, one)

    def _over_tcp(self, number: int, one: _Open) -> None:
        one.streamed = True
        self.told.over_tcp += 1
        self._write(self._request(number, one.name))

    def _write(self, octets: bytes) -> None:
        try:
            if self._stream is None:
                self._stream = socket.create_connection((HOST, self._port), timeout=CONNECT_S_MAX)
                self._deframer = Deframer()
            self._stream.sendall(octets)
        except OSError:
            self._lost()

    def _read_stream(self, now: float) -> None:
        if self._stream is None:
            return
        try:
            octets = self._stream.recv(OCTETS_MAX, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._lost()
            return
        for message in self._deframer.feed(octets):
            self._answer(message, now)

    def _lost(self) -> None:
        """The connection is gone; what was asked over it is asked again."""
        self._hang_up()
        self._again_s = time.monotonic() + AGAIN_S
        lost = [number for number, one in self._open.items() if one.streamed]
        for number in reversed(lost):
            self._open[number].streamed = False
            self._over_udp.appendleft(number)

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def main(path: str) -> None:
    """Commands until the input ends."""
    crowd = Crowd(json.loads(Path(path).read_text(encoding="utf-8")))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        print(json.dumps(crowd.begin(given["per_s"]) if given["do"] == "begin" else crowd.end()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
