"""A network of namespaces: one for each member and one that switches between them, where nftables drops what it is told to.

Member i has 10.x.y.i and fd00:…::i on eth0 and its own loopback; nothing of it touches the machine's own network. The switch is
a bridge; its filter sees both families, and each direction apart.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from chaos.faults.fault import Fault, FaultLog
from chaos.rigs.edge_command import Undo, run, unique
from replica.model.errors import Code, ZaibeiError, require

MEMBERS_MAX = 200
TABLE = "zaibei"
Pair = tuple[int, int]


class NetLab:
    """Use as a context; everything in it has a name of this run alone and is gone afterwards."""

    kind = "bridge"

    def __init__(self, members: int, log: FaultLog | None = None) -> None:
        require(0 < members <= MEMBERS_MAX, f"1 to {MEMBERS_MAX} members")
        self.name, self.members, self.log = unique(), range(1, members + 1), log
        self._undo = Undo()
        self.net = int.from_bytes(os.urandom(2), "big")
        self._dropped: list[Pair] = []

    @classmethod
    def attached(cls, name: str, net: int, members: int, log: FaultLog | None = None) -> Self:
        """A lab that somebody else built and will take down: to work its filter and start processes in it. Not a context."""
        lab = cls(members, log)
        lab.name, lab.net = name, net
        return lab

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._undo.all()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.all()

    def addresses(self, member: int) -> tuple[str, str]:
        """IPv4 and IPv6."""
        return f"10.{self.net >> 8}.{self.net & 255}.{member}", f"fd00:{self.net:x}::{member}"

    def space(self, member: int) -> str:
        """Name of a member's namespace; 0: of the switch."""
        return f"{self.name}n{member}"

    def argv(self, member: int, argv: Sequence[str]) -> list[str]:
        """A command, run where a member lives."""
        return ["ip", "netns", "exec", self.space(member), *argv]

    def start(self, member: int, argv: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
        """`ip netns exec` becomes the command itself, so the process id is the command's own."""
        return subprocess.Popen(self.argv(member, argv), **how)

    def enter(self, member: int) -> None:
        """Take the calling thread into a namespace, for clients in threads of their own. Needs root."""
        import ctypes

        with Path(f"/run/netns/{self.space(member)}").open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) != 0:
                raise ZaibeiError(Code.REFUSED, f"namespace {self.space(member)}: {os.strerror(ctypes.get_errno())}")

    # ------------------------------------------------------------------------------------------------------------- faults

    def parted(self, side: Iterable[int], other: Iterable[int]) -> Fault:
        near, far = sorted(side), sorted(other)
        return self._fault(
            f"nft parted {near} | {far}", [(a, b) for a in near for b in far] + [(b, a) for a in near for b in far]
        )

    def one_way(self, side: Iterable[int], other: Iterable[int]) -> Fault:
        near, far = sorted(side), sorted(other)
        return self._fault(f"nft one way {near} -x-> {far}", [(a, b) for a in near for b in far])

    def _fault(self, name: str, pairs: list[Pair]) -> Fault:
        async def begin() -> None:
            self._dropped.extend(pairs)
            self._filter()

        async def heal() -> None:
            for pair in pairs:
                if pair in self._dropped:
                    self._dropped.remove(pair)
            self._filter()

        return Fault(name, begin, heal, self.log)

    def dropped(self) -> int:
        """Frames the filter has dropped since it was set last."""
        text = run(["ip", "netns", "exec", self.space(0), "nft", "list", "table", "bridge", TABLE])
        words = text.split()
        return sum(int(words[place + 1]) for place, word in enumerate(words) if word == "packets")

    def _filter(self) -> None:
        rules = "\n".join(f'iifname "p{a}" oifname "p{b}" counter drop' for a, b in self._dropped)
        text = (
            f"table bridge {TABLE} {{}}\ndelete table bridge {TABLE}\ntable bridge {TABLE} {{\n"
            f"chain forward {{ type filter hook forward priority 0; policy accept;\n{rules}\n}}\n}}\n"
        )
        run(["ip", "netns", "exec", self.space(0), "nft", "-f", "-"], typed=text)

    # -------------------------------------------------------------------------------------------------------------- build

    def _build(self) -> None:
        switch = self._space(0)
        run(["ip", "-n", switch, "link", "add", "br0", "type", "bridge", "stp_state", "0"])
        run(["ip", "-n", switch, "link", "set", "br0", "up"])
        for member in self.members:
            space, end = self._space(member), f"{self.name}v{member}"
            run(["ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", space])
            run(["ip", "link", "set", end, "netns", switch])
            run(["ip", "-n", switch, "link", "set", end, "name", f"p{member}"])
            run(["ip", "-n", switch, "link", "set", f"p{member}", "master", "br0", "up"])
            four, six = self.addresses(member)
            run(["ip", "-n", space, "addr", "add", f"{four}/24", "dev", "eth0"])
            run(["ip", "-n", space, "addr", "add", f"{six}/64", "dev", "eth0", "nodad"])
            for link in ("lo", "eth0"):
                run(["ip", "-n", space, "link", "set", link, "up"])
        self._filter()

    def _space(self, member: int) -> str:
        name = self.space(member)
        run(["ip", "netns", "add", name])
        self._undo.add(lambda: run(["ip", "netns", "del", name]))
        return name


def probe() -> str:
    """ "" if namespaces, bridge and filter work; else why not."""
    try:
        with NetLab(2) as lab:
            lab.dropped()
    except (OSError, ZaibeiError) as exc:
        return str(exc)
    return ""
