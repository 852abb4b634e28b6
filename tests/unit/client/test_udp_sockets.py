"""Questions that begin at one moment share one socket: none is left open behind them."""

from __future__ import annotations

import asyncio
import os

import pytest

from hosting.client.edge_udp import UdpPool
from hosting.client.lookup import Server
from replica.model.errors import ZaibeiError

AT_ONCE = 8


def sockets() -> int:
    return sum(os.readlink(f"/proc/self/fd/{one}").startswith("socket:") for one in os.listdir("/proc/self/fd") if _open(one))


def _open(one: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{one}")


@pytest.mark.parametrize("rounds", [1, 3])
async def test_first_questions_at_once_leave_no_socket_behind(rounds: int) -> None:
    """A comparison asks eight names at once, every second for as long as a registry is given back: it ran out of files."""
    loop = asyncio.get_running_loop()
    silent, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    server = Server("udp", *silent.get_extra_info("sockname"))
    before = sockets()
    for _ in range(rounds):
        pool = UdpPool((0.05,))
        asked = [asyncio.create_task(pool.ask(server, number.to_bytes(20, "big"), number)) for number in range(AT_ONCE)]
        await asyncio.sleep(0.02)
        assert sockets() == before + 1
        for one in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(one, ZaibeiError)
        await pool.close()
    assert sockets() == before
    silent.close()
