"""A member's links in a process of its own: echoes every message, for tests that kill and freeze it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from replica.consensus.edge_link import GrpcLinks, LinkServer
from replica.consensus.edge_link_trust import TrustedMembers
from replica.consensus.link_port import Place
from replica.model.edge_identity import ensure_identity
from replica.model.identity import Peer, Pins
from replica.v1 import peer_pb2
from tests.unit.consensus.link_world import CLUSTER, LINEAGE


class Echo:
    """Ears that send back what they hear."""

    def __init__(self) -> None:
        self.links: GrpcLinks | None = None

    def connected(self, member: int, hello: peer_pb2.Hello) -> None:
        pass

    def lost(self, member: int, why: str) -> None:
        sys.stdout.write(f"lost {member}: {why}\n")
        sys.stdout.flush()

    def received(self, member: int, messages: Sequence[peer_pb2.GroupMessage]) -> None:
        for message in messages:
            if self.links is not None and message.kind != peer_pb2.GroupMessage.KIND_APPEND:
                self.links.send(member, message)

    def freshness(self, member: int, table: peer_pb2.FreshnessTable) -> None:
        pass

    def probes(self, member: int, table: peer_pb2.ProbeTable) -> None:
        pass


async def main(folder: Path, number: int, boot: int, port: int, other: int, other_address: str) -> None:
    """Member `number` at a port, and the one other member at its address; identities lie in the folder by name."""
    name = f"m{number}"
    identity = ensure_identity(folder / name, name)
    pins = Pins(
        tuple(
            Peer(f"m{member}", ensure_identity(folder / f"m{member}", f"m{member}").certificate_pem, role="member", number=member)
            for member in (number, other)
        )
    )
    hello = peer_pb2.Hello(
        format=1, cluster=CLUSTER, lineage=LINEAGE, member=number, name=name, journal=bytes([number]) * 16, boot=boot
    )
    echo, trust = Echo(), TrustedMembers(identity, lambda: pins)
    links = echo.links = GrpcLinks(lambda: hello, trust, echo, CollectorRegistry())
    server = LinkServer(trust, [links.service.add_to])
    await server.start([("127.0.0.1", port)])
    links.start()
    links.set_places({other: Place((other_address,))})
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]))
