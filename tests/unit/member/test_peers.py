"""Channels to other members: an address that is silent holds nobody up while another one answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from replica.consensus.link_port import Answerer, LinkKeys, Place
from replica.member import edge_peers
from replica.member.edge_peers import Peers
from replica.model.errors import Code, ZaibeiError

FOUR, SIX = "192.0.2.1:2646", "[2001:db8::1]:2646"


class Trust:
    """What answers where: "silent", "refused", or itself."""

    def __init__(self, **said: str) -> None:
        self.said, self.asked = {FOUR: said["four"], SIX: said["six"]}, list[str]()

    async def answerer(self, member: int, address: str) -> Answerer:
        self.asked.append(address)
        match self.said[address]:
            case "silent":
                await asyncio.Event().wait()
            case "refused":
                raise ZaibeiError(Code.UNREACHABLE, f"{address} refuses", retry=True)
        return Answerer(b"certificate")

    def credentials(self) -> LinkKeys:
        return LinkKeys(b"", b"", b"")


async def opened(monkeypatch: pytest.MonkeyPatch, **said: str) -> tuple[str, list[str]]:
    """(Address of the channel, addresses that were asked)."""
    trust: Any = Trust(**said)
    monkeypatch.setattr(edge_peers, "open_channel", lambda address, *_: address)
    monkeypatch.setattr(edge_peers, "NEXT_S", 0.05)
    async with asyncio.timeout(30):
        channel: Any = await Peers(trust, lambda: {2: Place((FOUR, SIX))})._open(2)
    return str(channel), trust.asked


@pytest.mark.parametrize(
    ("four", "six", "chosen", "asked"),
    [
        ("well", "well", FOUR, [FOUR]),
        ("refused", "well", SIX, [FOUR, SIX]),
        ("silent", "well", SIX, [FOUR, SIX]),
        ("well", "silent", FOUR, [FOUR]),
    ],
)
async def test_a_silent_address_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, four: str, six: str, chosen: str, asked: list[str]
) -> None:
    assert await opened(monkeypatch, four=four, six=six) == (chosen, asked)


async def test_where_nobody_answers_the_last_trouble_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZaibeiError, match=r"2001:db8::1.*refuses"):
        await opened(monkeypatch, four="refused", six="refused")
    with pytest.raises(ZaibeiError, match="not known here"):
        await Peers(Trust(four="well", six="well"), dict)._open(2)  # type: ignore[arg-type]
