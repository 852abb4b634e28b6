"""One address of a called member for all its callers: whose connection it is, is told by whose socket it is.

Members tell everybody the same address of theirs, so a link cannot be told by where it was called. The caller is a process of
this machine: /proc/net/tcp says which socket has the connection's other end, and /proc/PID/fd of the members' processes says
whose it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from chaos.faults.edge_stream_proxy import PIECE_OCTETS_MAX, Address, StreamProxy
from chaos.faults.mesh import Mesh, Pair

OUTSIDER = 0  # whoever is no member: commands, other tools
LOOKS_MAX = 5  # a socket may be in a process's table a moment later than its connection arrives
LOOK_PAUSE_S = 0.01
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


class Door:
    """Listens for one member; each connection goes to the link of its caller.

    Args:
        links: caller -> link; OUTSIDER must be there.
        pids: member -> process id now; asked at each connection.
    """

    def __init__(
        self, listen: Sequence[Address], links: Mapping[int, StreamProxy], pids: Callable[[], Mapping[int, int]]
    ) -> None:
        self._listen, self._links, self._pids = tuple(listen), dict(links), pids
        self._servers: list[asyncio.Server] = []
        self.addresses: list[Address] = []

    async def start(self) -> Door:
        for host, port in self._listen:
            server = await asyncio.start_server(self._accepted, host, port, limit=PIECE_OCTETS_MAX)
            self._servers.append(server)
            self.addresses.append((host, server.sockets[0].getsockname()[1]))
        return self

    async def stop(self) -> None:
        for server in self._servers:
            server.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = await self._caller(writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1])
        await self._links.get(caller, self._links[OUTSIDER]).carry(reader, writer)

    async def _caller(self, near_port: int, far_port: int) -> int:
        for _ in range(LOOKS_MAX):
            inode = socket_inode(near_port, far_port)
            if inode:
                for member, pid in self._pids().items():
                    if has_socket(pid, inode):
                        return member
            await asyncio.sleep(LOOK_PAUSE_S)
        return OUTSIDER


def socket_inode(near_port: int, far_port: int) -> str:
    """Of the socket on this machine whose own port is the first and whose peer's is the second; "" if there is none."""
    for table in TABLES:
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == near_port and int(words[2].rpartition(":")[2], 16) == far_port:
                    return words[9]
    return ""


def has_socket(pid: int, inode: str) -> bool:
    wanted = f"socket:[{inode}]"
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(entry.path) == wanted:
                    return True
    return False


async def mesh_of(
    called: Mapping[int, tuple[Sequence[Address], Sequence[Address]]],
    pids: Callable[[], Mapping[int, int]],
    seed: int,
    mesh: Mesh,
) -> list[Door]:
    """Doors and links of a whole cluster.

    Args:
        called: member -> (addresses it tells others, addresses it really listens on).
        mesh: gets the links; its `stop` ends them, each door is stopped by itself.
    """
    doors = []
    for member, (listen, target) in called.items():
        callers = [OUTSIDER, *(other for other in called if other != member)]
        links = {caller: await StreamProxy((), target, seed * 10_000 + caller * 100 + member).start() for caller in callers}
        pairs: dict[Pair, StreamProxy] = {(caller, member): link for caller, link in links.items()}
        mesh.links.update(pairs)
        doors.append(await Door(listen, links, pids).start())
    return doors
