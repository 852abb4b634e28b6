"""One address of a called member for all its callers: whose connection it is, is told by whose socket it is.

Members tell everybody the same address of theirs, so a link cannot be told by where it was called. The caller is a process of
this machine: the kernel says which socket has the connection's other end (sock_diag; reading /proc/net/tcp takes 10 ms on some
kernels, and a door that is slow keeps members apart), and /proc/PID/fd of the members' processes says whose it is.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from chaos.faults.edge_stream_proxy import PIECE_OCTETS_MAX, Address, StreamProxy
from chaos.faults.mesh import Mesh

OUTSIDER = 0  # whoever is no member: commands, other tools
LOOKS_MAX = 5  # a socket may be in a process's table a moment later than its connection arrives
LOOK_PAUSE_S = 0.01
NONE, ORPHAN = -1, 0
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1  # linux/netlink.h, linux/sock_diag.h
HEAD_OCTETS, INODE_AT, ANSWER_OCTETS_MAX = 16, 68, 8_192  # struct nlmsghdr; idiag_inode in struct inet_diag_msg
ANY = 0xFFFFFFFF


class Door:
    """Listens for one member; each connection goes to the link of its caller.

    Args:
        links: caller -> link; OUTSIDER must be there.
        pids: member -> process id now; asked at each connection.
    """

    def __init__(
        self, listen: Sequence[Address], links: Mapping[int, StreamProxy], pids: Callable[[], Mapping[int, int]]
    ) -> None:
        self._listen, self.links, self._pids = tuple(listen), dict(links), pids
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
        near, far = writer.get_extra_info("peername")[:2], writer.get_extra_info("sockname")[:2]
        caller = await self._caller(near, far)
        await self.links.get(caller, self.links[OUTSIDER]).carry(reader, writer)

    async def _caller(self, near: Address, far: Address) -> int:
        for _ in range(LOOKS_MAX):
            inode = socket_inode(near, far)
            if inode == ORPHAN:
                break
            if inode != NONE:
                for member, pid in self._pids().items():
                    if has_socket(pid, inode):
                        return member
            await asyncio.sleep(LOOK_PAUSE_S)
        return OUTSIDER


def socket_inode(near: Address, far: Address) -> int:
    """Of the TCP socket on this machine with this own address and this peer; NONE if there is none, ORPHAN if it is closed."""
    family = socket.AF_INET6 if ":" in near[0] else socket.AF_INET
    ends = b"".join(socket.inet_pton(family, host).ljust(16, b"\0") for host, _ in (near, far))
    asked = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, ANY)
    asked += struct.pack("!HH", near[1], far[1]) + ends + struct.pack("=III", 0, ANY, ANY)
    head = struct.pack("=IHHII", HEAD_OCTETS + len(asked), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        kernel.sendto(head + asked, (0, 0))
        told = kernel.recv(ANSWER_OCTETS_MAX)
    if struct.unpack_from("=IH", told)[1] != SOCK_DIAG_BY_FAMILY:
        return NONE
    inode: int = struct.unpack_from("=I", told, HEAD_OCTETS + INODE_AT)[0]
    return inode


def has_socket(pid: int, inode: int) -> bool:
    wanted = f"socket:[{inode}]"
    with suppress(OSError):
        for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int, reverse=True):  # new ones first
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") == wanted:
                    return True
    return False


Called = Mapping[int, tuple[Sequence[Address], Sequence[Address]]]  # member -> (what it tells others, where it really listens)


async def mesh_of(called: Called, pids: Callable[[], Mapping[int, int]], seed: int, mesh: Mesh) -> dict[int, Door]:
    """Doors and links of a whole cluster; `mesh` gets the links and its `stop` ends them, each door is stopped by itself."""
    doors: dict[int, Door] = {}
    for member in called:
        await add_door(doors, called, member, pids, seed, mesh)
    return doors


async def add_door(
    doors: dict[int, Door], called: Called, member: int, pids: Callable[[], Mapping[int, int]], seed: int, mesh: Mesh
) -> None:
    """One more member: its door, and its own way through the doors of all that are there."""
    listen, _ = called[member]

    async def link(caller: int, to: int) -> StreamProxy:
        if (before := mesh.links.get((caller, to))) is not None:
            await before.stop()
        made = await StreamProxy((), called[to][1], seed * 10_000 + caller * 100 + to).start()
        mesh.links[(caller, to)] = made
        return made

    links = {caller: await link(caller, member) for caller in (OUTSIDER, *doors)}
    for other, door in doors.items():
        door.links[member] = await link(member, other)
    doors[member] = await Door(listen, links, pids).start()
