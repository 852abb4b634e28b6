"""Members joined by links, over loopback gRPC or in memory, for tests: one face for both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from prometheus_client import CollectorRegistry

from replica.consensus.edge_link import GrpcLinks, LinkServer
from replica.consensus.edge_link_trust import TrustedMembers
from replica.consensus.link_memory import MemoryHub
from replica.consensus.link_port import LinkLimits, Links, Place
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.identity import Peer, Pins
from replica.v1 import peer_pb2

LATE_S = 0.02  # later than this was the machine, not what is waited for
CLUSTER, LINEAGE = b"c" * 16, b"l" * 16
WAIT_S = 30
QUICK = LinkLimits(beat_ms=20, silent_ms_max=400, backoff_ms_max=100)
Wire = peer_pb2.GroupMessage


def wire(group: int = 7, kind: Wire.Kind.ValueType = Wire.KIND_HEARTBEAT, **numbers: int) -> Wire:
    message = Wire(group=group, kind=kind)
    for name, value in numbers.items():
        setattr(message, name, value)
    return message


async def until(condition: Callable[[], object], wait_s: float = WAIT_S) -> None:
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def seconds_until(condition: Callable[[], object]) -> float:
    """As `until`; seconds it took, less those in which a busy machine did not let us look."""
    late_s, began_s = 0.0, time.monotonic()
    looked_s = began_s
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.002)
            now_s = time.monotonic()
            late_s, looked_s = late_s + max(0.0, now_s - looked_s - LATE_S), now_s
    return looked_s - began_s - late_s


class Heard:
    """Ears that keep what they hear; `story` in order."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.hellos: dict[int, list[peer_pb2.Hello]] = {}
        self.reasons: list[str] = []
        self.turns: list[list[Wire]] = []
        self.tables: list[peer_pb2.FreshnessTable | peer_pb2.ProbeTable] = []
        self.fails = False
        self.on_received: Callable[[int, Sequence[Wire]], None] = lambda _member, _messages: None

    @property
    def messages(self) -> list[Wire]:
        return [message for turn in self.turns for message in turn]

    def connected(self, member: int, hello: peer_pb2.Hello) -> None:
        self.story.append(f"connected {member}")
        self.hellos.setdefault(member, []).append(hello)

    def lost(self, member: int, why: str) -> None:
        self.story.append(f"lost {member}")
        self.reasons.append(why)

    def received(self, member: int, messages: Sequence[Wire]) -> None:
        if self.fails:
            raise ValueError("planted")
        if "received" not in self.story[-1]:
            self.story.append(f"received {member}")
        self.turns.append(list(messages))
        self.on_received(member, messages)

    def freshness(self, member: int, table: peer_pb2.FreshnessTable) -> None:
        self.tables.append(table)

    def probes(self, member: int, table: peer_pb2.ProbeTable) -> None:
        self.tables.append(table)


@dataclass(slots=True)
class Node:
    """One member: its links, what it heard, the Hello it tells."""

    number: int
    hello: peer_pb2.Hello
    links: Links
    heard: Heard
    registry: CollectorRegistry
    server: LinkServer | None = None
    place: Place = field(default_factory=lambda: Place(()))

    def refused(self, member: int, reason: str) -> float:
        labels = {"member": str(member), "reason": reason}
        return self.registry.get_sample_value("zaibei_consensus_link_refused_count_total", labels) or 0

    async def stop(self) -> None:
        await self.links.stop()
        if self.server is not None:
            await self.server.stop()


class World:
    """All members of one test. `kind`: grpc or memory."""

    def __init__(self, kind: str, folder: Path, limits: LinkLimits = QUICK) -> None:
        self.kind, self.folder, self.limits = kind, folder, limits
        self.hub = MemoryHub()
        self.peers: dict[str, Peer] = {}
        self.nodes: list[Node] = []

    def identity(self, name: str, number: int, role: str = "member") -> Identity:
        """An identity that is pinned as that number."""
        identity = ensure_identity(self.folder / name, name)
        self.peers[name] = Peer(name, identity.certificate_pem, role=role, number=number)
        return identity

    def trust(self, identity: Identity) -> TrustedMembers:
        return TrustedMembers(identity, lambda: Pins(tuple(self.peers.values())))

    async def add(
        self,
        number: int,
        *,
        name: str = "",
        cluster: bytes = CLUSTER,
        lineage: bytes = LINEAGE,
        journal: bytes = b"",
        says: int = 0,
        boot: int = 1,
        listen: Sequence[tuple[str, int]] = (("127.0.0.1", 0),),
        limits: LinkLimits | None = None,
    ) -> Node:
        """A member that listens and does not call yet. `says`: the number its Hello tells, when another one."""
        name = name or f"m{number}"
        hello = peer_pb2.Hello(
            format=1,
            cluster=cluster,
            lineage=lineage,
            member=says or number,
            name=name,
            journal=journal or bytes([number]) * 16,
            boot=boot,
        )
        heard, registry = Heard(), CollectorRegistry()
        limits = limits or self.limits
        if self.kind == "memory":
            links: Links = self.hub.links((number, name), lambda: hello, heard, limits, registry)
            node = Node(number, hello, links, heard, registry, place=Place((f"memory:{number}",)))
        else:
            trust = self.trust(self.identity(name, number))
            made = GrpcLinks(lambda: hello, trust, heard, registry, limits, Random(number))
            server = LinkServer(trust, [made.service.add_to])
            await server.start(listen)
            addresses = tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in server.addresses)
            node = Node(number, hello, made, heard, registry, server, Place(addresses))
        self.nodes.append(node)
        return node

    async def join(self, *nodes: Node) -> None:
        """All start and know each other; returns when all are connected both ways."""
        for node in nodes:
            node.links.start()
        self.places(*nodes)
        for node in nodes:
            others = {other.number for other in nodes if other is not node}
            await until(lambda node=node, others=others: node.links.connected == others and set(node.heard.hellos) >= others)

    def places(self, *nodes: Node) -> None:
        places: Mapping[int, Place] = {node.number: node.place for node in nodes}
        for node in nodes:
            node.links.set_places(places)

    async def pair(self) -> tuple[Node, Node]:
        one, two = await self.add(1), await self.add(2)
        await self.join(one, two)
        return one, two

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop()
