"""What is known of each other member and what the ears were told of it (table in link_port.py), whatever carries the links."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Concatenate, ParamSpec

from replica.consensus.edge_link_metrics import LinkMetrics
from replica.consensus.link_checks import check_again, check_hello, check_messages, check_table
from replica.consensus.link_port import LinkEars, Place, Reason, Refused
from replica.model.errors import InvariantBroken
from replica.v1 import peer_pb2

LOGGER = logging.getLogger("zaibei.consensus.link")

P = ParamSpec("P")
OwnHello = Callable[[], peer_pb2.Hello]


@dataclass(slots=True)
class _Known:
    """One other member.

    Args:
        journal: its journal's identity, empty until it showed one; sure: the cluster itself knows it.
        told: octets of the Hello that the ears know and that no `lost` followed.
        ours, theirs: our call, its call stands.
        trouble: why it is not connected.
    """

    journal: bytes = b""
    sure: bool = False
    told: bytes | None = None
    ours: bool = False
    theirs: bool = False
    trouble: str = "not called yet"


class LinkBook:
    """Other members by number, and the one way to the ears. On the event loop alone."""

    def __init__(self, own: OwnHello, ears: LinkEars, metrics: LinkMetrics) -> None:
        self._own, self._ears = own, ears
        self.metrics = metrics
        self._known: dict[int, _Known] = {}
        self._said: dict[int, str] = {}
        self.failure: Exception | None = None
        self.closed = False

    @property
    def connected(self) -> frozenset[int]:
        return frozenset(member for member, known in self._known.items() if known.ours)

    def trouble(self, member: int) -> str:
        """Why the member is not connected; "" when it is."""
        known = self._known.get(member)
        if known is None:
            return "no such member is known here"
        return "" if known.ours else known.trouble

    def places(self, places: Mapping[int, Place]) -> list[int]:
        """Take what the cluster knows of its members; what is known of others is forgotten.

        Returns:
            Members that were believed with another journal: their calls must end.
        """
        wrong = []
        for member in [one for one in self._known if one not in places]:
            if not self._known[member].ours and not self._known[member].theirs:
                del self._known[member]
        for member, place in places.items():
            known = self._known.setdefault(member, _Known())
            if place.journal:
                if known.journal not in (b"", place.journal):
                    wrong.append(member)
                known.journal, known.sure = place.journal, True
        return wrong

    def check(self, hello: peer_pb2.Hello, certified: tuple[int, str]) -> None:
        """Raises Refused: not the member that its certificate names, or not of our cluster."""
        own = self._own()
        journals = {member: known.journal for member, known in self._known.items() if known.journal}
        check_hello(hello, own, certified, journals | {own.member: own.journal})

    def greeted(self, hello: peer_pb2.Hello, first: peer_pb2.Hello | None = None) -> None:
        """A checked Hello; `first`: the one that its call began with, when it is a later one. Raises Refused."""
        if first is not None:
            check_again(hello, first)
        known = self._known.setdefault(hello.member, _Known())
        if not known.sure:
            known.journal = hello.journal
        octets = hello.SerializeToString(deterministic=True)
        if octets != known.told:
            known.told = octets
            self._tell(self._ears.connected, hello.member, hello)

    def ours(self, member: int, hello: peer_pb2.Hello) -> None:
        """Our call stands."""
        known = self._known.setdefault(member, _Known())
        known.ours, known.trouble = True, ""
        self.metrics.connected(member, True)
        self.greeted(hello)

    def ours_over(self, member: int, why: str) -> None:
        """Our call is over, or never stood."""
        known = self._known.setdefault(member, _Known())
        if known.trouble != why and not self.closed:
            LOGGER.info("no link to a member", extra={"fields": {"member": member, "why": why}})
        stood, known.ours, known.trouble = known.ours, False, why
        self.metrics.connected(member, False)
        if stood:
            self._lost(member, known, why)

    def theirs(self, member: int) -> None:
        """Its call stands; `greeted` follows."""
        self._known.setdefault(member, _Known()).theirs = True

    def theirs_over(self, member: int, why: str) -> None:
        """Its call is over, and no newer one came in its place."""
        known = self._known.setdefault(member, _Known())
        known.theirs = False
        if not known.ours:
            self._lost(member, known, why)

    def _lost(self, member: int, known: _Known, why: str) -> None:
        if known.told is None:
            return
        known.told = None
        self.metrics.lost(member)
        self._tell(self._ears.lost, member, why)

    def hear(self, member: int, message: peer_pb2.LinkMessage) -> None:
        """Take what came on a member's call and is neither Hello nor beat. Raises Refused."""
        match message.WhichOneof("body"):
            case "messages":
                messages = message.messages.messages
                check_messages(messages)
                if messages:
                    self.metrics.received(member, len(messages))
                    self._tell(self._ears.received, member, messages)
            case "freshness":
                check_table(message.freshness.groups)
                self._tell(self._ears.freshness, member, message.freshness)
            case "probes":
                check_table(message.probes.findings)
                self._tell(self._ears.probes, member, message.probes)
            case body:
                raise Refused(Reason.UNEXPECTED, f"{body} in a place where it has no meaning")

    def refuse(self, member: int, refused: Refused) -> None:
        """Count what was not taken, and say it once for a person."""
        self.metrics.refused(member, refused.reason)
        if self._said.get(member) == str(refused):
            return
        self._said[member] = str(refused)
        LOGGER.warning("refused another member's call", extra={"fields": {"member": member, "why": str(refused)}})

    def _tell(self, ear: Callable[Concatenate[int, P], None], member: int, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.closed or self.failure is not None:
            return
        try:
            ear(member, *args, **kwargs)
        except Exception as exc:  # noqa: BLE001 - ours alone: what another member says was checked before
            self.broke(f"while hearing member {member}", exc)

    def broke(self, where: str, exc: Exception) -> None:
        """A fault of ours: the loop's handler decides what becomes of the process, until then nothing is handed up."""
        if self.failure is not None:
            return
        self.failure = exc
        broken = exc if isinstance(exc, InvariantBroken) else InvariantBroken(f"links to members failed {where}: {exc!r}")
        broken.__cause__ = None if broken is exc else exc
        asyncio.get_running_loop().call_exception_handler({"message": f"links {where}", "exception": broken})
