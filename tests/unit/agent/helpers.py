"""Builders for the agent's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replica.agent.edge_clocks import Clocks
from replica.agent.edge_log import AgentLog
from replica.agent.nature import Nature, Transaction
from replica.agent.records import record_of
from replica.agent.retention import Spool
from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.digest import MODULUS
from replica.model.handle.values import HandleValue
from replica.model.identifier import Identifier
from replica.model.position import Position, epoch_start
from replica.model.signing import Signer, grant_octets
from replica.native import record_hash
from replica.v1 import source_pb2

Content = dict[bytes, bytes]
SOURCE = "node-a"
LINEAGE = b"L" * 16
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
MEMBER = Signer(Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))


@dataclass
class Turned:
    """A clock turned by hand."""

    now_s: float = 1_000.0

    def clocks(self) -> Clocks:
        return Clocks(unix_ms=lambda: int(self.now_s * 1_000), boottime_s=lambda: self.now_s)


def opened(
    folder: Path, *, spool: Spool | None = None, clock: Turned | None = None, fsync: Callable[[int], None] | None = None
) -> AgentLog:
    nature = Nature(SOURCE, ("88.118",))
    clocks = (clock or Turned()).clocks()
    if fsync is None:
        return AgentLog.open(folder / "state", nature, SIGNER, spool=spool, clocks=clocks, marker=folder / "identity")
    return AgentLog.open(folder / "state", nature, SIGNER, spool=spool, clocks=clocks, marker=folder / "identity", fsync=fsync)


def key(name: str) -> bytes:
    return Identifier.parse(f"88.118.8/{name}").key()


def value(text: str) -> bytes:
    return record_of([HandleValue(1, b"URL", text.encode())])


def put(name: str, text: str = "x") -> Change:
    return Change(OP_PUT, key(name), value(text))


def delete(name: str) -> Change:
    return Change(OP_DELETE, key(name))


def commit(log: AgentLog, *changes: Change) -> Position:
    return log.append([Transaction(changes)])[0]


def grant(parent: Position, epoch: int = 1, signer: Signer = MEMBER) -> source_pb2.Grant:
    start = epoch_start(parent, LINEAGE, epoch)
    octets = grant_octets(SOURCE, parent, start, "first contact", "member-1")
    return source_pb2.Grant(
        source=SOURCE, parent=parent.to_wire(), start=start.to_wire(), reason="first contact", holder="member-1",
        signature=signer.sign(octets),
    )  # fmt: skip


def quorum(position: Position) -> source_pb2.Receipt:
    return source_pb2.Receipt(source=SOURCE, position=position.to_wire(), level=source_pb2.Receipt.LEVEL_QUORUM)


def total(content: Content) -> tuple[int, int]:
    hashes = [int.from_bytes(record_hash(name, octets), "little") for name, octets in content.items()]
    return len(content), sum(hashes) % MODULUS
