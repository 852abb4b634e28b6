"""A network of namespaces joined by a switch of our own (edge_switch.py): packets are lost, late, doubled, out of order, damaged
past TCP's checksum, or wait for a slow wire; each direction apart, by a seed.

Addresses and processes are as in NetLab; a partition is a wire on which everything is lost.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from chaos.faults.fault import Fault
from chaos.rigs.edge_command import run
from chaos.rigs.edge_network import NetLab, Pair
from chaos.rigs.frames import FrameRule
from replica.model.errors import Code, ZaibeiError

ROOT = Path(__file__).resolve().parents[2]
STARTS_S_MAX = 20.0
ANSWERS_S_MAX = 10.0
LOOK_EVERY_S = 0.02
LOST = FrameRule(lost=1)
HEARS = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 9)); s.settimeout(10); s.recv(9)"
SAYS = (
    "import socket, sys, time; s = socket.socket(type=socket.SOCK_DGRAM)\n"
    "for _ in range(100): s.sendto(b'x', (sys.argv[1], 9)); time.sleep(0.1)"
)


class WireLab(NetLab):
    """See the module. Rules of the newest fault count first."""

    kind = "wires"

    def control(self) -> Path:
        return Path(tempfile.gettempdir()) / f"{self.name}.switch"

    # -------------------------------------------------------------------------------------------------------------- faults

    def ruled(self, pairs: Iterable[Pair], rule: FrameRule, name: str) -> Fault:
        """This rule for all these (sender, receiver); healed: as before."""
        chosen = [(pair, rule) for pair in pairs]

        async def begin() -> None:
            self._rules[:0] = chosen
            self.tell()

        async def heal() -> None:
            for one in chosen:
                if one in self._rules:
                    self._rules.remove(one)
            self.tell()

        return Fault(name, begin, heal, self.log)

    def parted(self, side: Iterable[int], other: Iterable[int]) -> Fault:
        near, far = sorted(side), sorted(other)
        pairs = [(a, b) for a in near for b in far]
        return self.ruled([*pairs, *((b, a) for a, b in pairs)], LOST, f"wires parted {near} | {far}")

    def one_way(self, side: Iterable[int], other: Iterable[int]) -> Fault:
        near, far = sorted(side), sorted(other)
        return self.ruled([(a, b) for a in near for b in far], LOST, f"wires one way {near} -x-> {far}")

    def tell(self) -> None:
        """Give the switch the rules as they are now."""
        wires: dict[Pair, list[FrameRule]] = {}
        for pair, rule in self._rules:
            wires.setdefault(pair, []).append(rule)
        self._ask(
            {"wires": [{"from": a, "to": b, "rules": [rule.document() for rule in rules]} for (a, b), rules in wires.items()]}
        )

    def counts(self) -> dict[str, int]:
        """Frames so far: in, lost, doubled, late, slipped."""
        return self._ask({})

    def dropped(self) -> int:
        return self.counts()["lost"]

    def _ask(self, document: object) -> dict[str, int]:
        """Raises ZaibeiError(UNREACHABLE): the switch does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(ANSWERS_S_MAX)
                asking.connect(str(self.control()))
                asking.sendall(json.dumps(document).encode() + b"\n")
                told = asking.makefile("rb").readline()
        except OSError as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"the switch of {self.name} does not answer: {exc}") from exc
        found: dict[str, int] = json.loads(told)
        return found

    # --------------------------------------------------------------------------------------------------------------- build

    @property
    def _rules(self) -> list[tuple[Pair, FrameRule]]:
        found: list[tuple[Pair, FrameRule]] = self.__dict__.setdefault("rules", [])  # also of a lab that was attached to
        return found

    def _build(self) -> None:
        spaces = {member: self._space(member) for member in self.members}
        argv = [sys.executable, "-m", "chaos.rigs.edge_switch", self.name, str(len(spaces)), str(self.control()), self.name]
        self._started(argv)
        for member, space in spaces.items():
            four, six = self.addresses(member)
            run(["ip", "-n", space, "addr", "add", f"{four}/24", "dev", "eth0"])
            run(["ip", "-n", space, "addr", "add", f"{six}/64", "dev", "eth0", "nodad"])
            for link in ("lo", "eth0"):
                run(["ip", "-n", space, "link", "set", link, "up"])

    def _started(self, argv: Sequence[str]) -> None:
        switch = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

        def ended() -> None:
            switch.kill()
            switch.communicate()
            self.control().unlink(missing_ok=True)

        self._undo.add(ended)
        end_s = time.monotonic() + STARTS_S_MAX
        while not self.control().exists():
            if switch.poll() is not None or time.monotonic() > end_s:
                switch.kill()
                _, said = switch.communicate()
                raise ZaibeiError(Code.REFUSED, f"the switch did not start: {said.decode('utf-8', 'replace')[-500:]}")
            time.sleep(LOOK_EVERY_S)


def probe() -> str:
    """ "" if a frame crosses a switch of our own; else why not."""
    try:
        with WireLab(2) as lab:
            found = lab.addresses(2)[0]
            waits = lab.start(2, [sys.executable, "-c", HEARS], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            sends = lab.start(1, [sys.executable, "-c", SAYS, found], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                return "" if waits.wait(STARTS_S_MAX) == 0 else "no frame came through"
            finally:
                for process in (waits, sends):
                    process.kill()
                    process.wait()
    except (OSError, ZaibeiError, subprocess.TimeoutExpired) as exc:
        return str(exc)
