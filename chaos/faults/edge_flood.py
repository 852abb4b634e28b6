"""A flood of Handle servers, as a process: `python -m chaos.faults.edge_flood CONFIG.json`. Loopback alone.

Config (JSON): port, prefixes, records (of each prefix), seed, connections (that are held open and say too little).

| command, a JSON line | what it does |
| --- | --- |
| {"do": "capacity"} | asks one after another from one address that has proved itself, and says how many answers a second came |
| {"do": "begin", "per_s": 200000} | floods until the end: UDP from many forged addresses, and slow and silent connections |
| {"do": "end"} | stops, and says what was sent and what forged addresses got |

An address of loopback stands for a forged one: nobody there ever finished a TCP handshake, and what is sent to it is counted.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from chaos.faults.flood import TOGETHER, Gained, questions
from replica.native import Datagrams, pack_address

HOST: Final = "127.0.0.1"
HONEST: Final = "127.0.0.9"  # it measures what can be answered
FORGED: Final = 192  # addresses, each of another /24
BATCH: Final = 128
WINDOW: Final = 256
CAPACITY_S: Final = 2.0
WAIT_MS: Final = 50
DRIP_S: Final = 1.0
ROUND: Final = 256  # calls between two looks at what came back
READ_AT_ONCE: Final = 16
PAUSE_S: Final = 0.001
UDP_SEGMENT: Final = 103  # linux/udp.h, since 4.18: the kernel cuts one call's octets into datagrams of this length
DATAGRAM_OCTETS_MAX: Final = 2_048


class Flood:
    """See the module."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._asked = questions(config["prefixes"], config["records"], config["seed"])
        self._port, self._connections = int(config["port"]), int(config["connections"])
        self._dice = random.Random(config["seed"])
        self._peer = pack_address(HOST, self._port)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._gained = Gained()
        self._sent = self._sent_octets = self._opened = 0
        self._seconds, self._per_s = 0.0, 0.0

    def capacity(self) -> dict[str, Any]:
        """Answers a second, with always so many questions under way."""
        with socket.create_connection((HOST, self._port), source_address=(HONEST, 0)), _bound(HONEST) as endpoint:
            wire, asked = Datagrams(endpoint.fileno(), BATCH, DATAGRAM_OCTETS_MAX), [(one, self._peer) for one in self._asked]
            poll = select.poll()
            poll.register(endpoint, select.POLLIN)
            began, answered, at, free = time.monotonic(), 0, 0, WINDOW
            while (now := time.monotonic()) < began + CAPACITY_S:
                if free:
                    at = 0 if at + free > len(asked) else at
                    free -= wire.send(asked[at : at + free])
                    at += WINDOW
                if poll.poll(WAIT_MS):
                    got = len(wire.receive())
                    answered, free = answered + got, min(WINDOW, free + got)
                else:
                    free = WINDOW  # what did not come by now was dropped
            wire.close()
        return {"answers_per_s": int(answered / (now - began))}

    def begin(self, per_s: float) -> dict[str, Any]:
        self._per_s = per_s
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._datagrams, self._slowly)]
        for thread in self._threads:
            thread.start()
        return {"begun": True}

    def end(self) -> dict[str, Any]:
        self._over.set()
        for thread in self._threads:
            thread.join()
        gained = self._gained
        return {
            "seconds": self._seconds, "sent": self._sent, "sent_octets": self._sent_octets,
            "answers": gained.answers, "octets": gained.octets, "multiplied": gained.multiplied,
            "factor_max": gained.factor_max, "connections": self._opened,
        }  # fmt: skip

    def _datagrams(self) -> None:
        """As many as were asked for, each call as many as one may; of what comes back nothing is left unread for long."""
        ends = [_bound(f"127.{64 + number % 64}.{number}.{self._dice.randrange(1, 255)}") for number in range(FORGED)]
        wires = [Datagrams(end.fileno(), BATCH, DATAGRAM_OCTETS_MAX) for end in ends]
        places = range(0, len(self._asked), TOGETHER)
        blocks = [(len(self._asked[place]), b"".join(self._asked[place : place + TOGETHER])) for place in places]
        began, turn = time.monotonic(), 0
        while not self._over.is_set():
            due = (time.monotonic() - began) * self._per_s - self._sent
            for _ in range(min(int(due) // TOGETHER, ROUND)):
                end, (size, block) = self._dice.choice(ends), self._dice.choice(blocks)
                with suppress(OSError):
                    end.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
                    self._sent_octets += end.sendto(block, (HOST, self._port))
                    self._sent += TOGETHER
            since_s = time.monotonic() - began
            for _ in range(READ_AT_ONCE):
                turn = (turn + 1) % len(wires)
                self._took(wires[turn], since_s)
            if due < TOGETHER:
                time.sleep(PAUSE_S)
        self._seconds = time.monotonic() - began
        time.sleep(0.5)  # what is on its way
        for wire, end in zip(wires, ends, strict=True):
            self._took(wire, self._seconds)
            wire.close()
            end.close()

    def _took(self, wire: Datagrams, since_s: float) -> None:
        with suppress(OSError):
            while got := wire.receive():
                for answer, _ in got:
                    self._gained.took(answer, self._asked, since_s)

    def _slowly(self) -> None:
        """Half of the connections send an octet a second, the others nothing; who is closed comes again."""
        held: list[socket.socket | None] = [None] * self._connections
        word = self._asked[0]
        sent = [0] * len(held)
        while not self._over.wait(DRIP_S):
            for place, one in enumerate(held):
                try:
                    if one is None:
                        one = held[place] = socket.create_connection(
                            (HOST, self._port), timeout=1, source_address=(f"127.130.{place % 250}.9", 0)
                        )
                        sent[place] = 0
                        self._opened += 1
                    if place % 2:
                        one.send(word[sent[place] : sent[place] + 1])
                        sent[place] = (sent[place] + 1) % (len(word) - 1)  # it never comes to an end
                    elif _closed(one):
                        raise ConnectionResetError
                except OSError:
                    if one is not None:
                        one.close()
                    held[place] = None
                if self._over.is_set():
                    break
        for one in held:
            if one is not None:
                one.close()


def _bound(host: str) -> socket.socket:
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.setblocking(False)
    endpoint.bind((host, 0))
    return endpoint


def _closed(one: socket.socket) -> bool:
    try:
        return one.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def main(path: str) -> None:
    """Commands until the input ends."""
    flood = Flood(json.loads(Path(path).read_text(encoding="utf-8")))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        if given["do"] == "begin":
            said = flood.begin(given["per_s"])
        else:
            said = flood.capacity() if given["do"] == "capacity" else flood.end()
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
