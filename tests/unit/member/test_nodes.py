"""Where a node answers is known again after a restart, and a damaged file costs nothing but that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replica.member.edge_nodes import NodeFile
from replica.takeover.ports import Endpoint

WHERE = (Endpoint("tcp", "127.0.0.1", 2641), Endpoint("udp", "::1", 2641))


async def test_kept_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "a.json"
    node = NodeFile(path)
    assert not node.endpoints
    node.said(WHERE)
    node.said(WHERE)
    async with asyncio.timeout(10):
        while not path.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert NodeFile(path).endpoints == node.endpoints == WHERE


@pytest.mark.parametrize("octets", [b"", b"[", b"{}1", b"[[1]]", b'[["tcp","::1","x"]]', b"\xff", b"5"])
def test_a_damaged_file_is_no_address(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "a.json").write_bytes(octets)
    assert NodeFile(tmp_path / "a.json").endpoints == ()


async def test_what_is_no_address_is_left_out(tmp_path: Path) -> None:
    """A source describes itself: a port of 70,000 must not reach a socket, nor a name a resolver."""
    node = NodeFile(tmp_path / "a.json")
    wrong = [Endpoint("tcp", "127.0.0.1", 70_000), Endpoint("udp", "node.example", 2641), Endpoint("tcp", "127.0.0.1", 0)]
    node.said([*wrong, *WHERE])
    assert node.endpoints == WHERE
