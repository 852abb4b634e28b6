"""The signed end of a snapshot: who vouches for the content as a whole. Pure."""

from __future__ import annotations

from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.model.signing import snapshot_octets, verify
from replica.v1 import source_pb2


def check_end(source: str, position: Position, source_key: bytes, end: source_pb2.SnapshotEnd) -> None:
    """The end must state the header's position and be signed by the source; the loader compares count, digest and hash.

    Raises:
        ZaibeiError(VERIFICATION_FAILED): nothing of the snapshot may be used.
    """
    digest = ContentDigest.from_wire(end.digest)
    if digest.position != position:
        raise ZaibeiError(
            Code.VERIFICATION_FAILED, f"a snapshot that began at {position.short()} ends at {digest.position.short()}"
        )
    if not verify(source_key, snapshot_octets(source, digest, end.parts, end.ordered_hash), end.signature):
        raise ZaibeiError(Code.VERIFICATION_FAILED, "the source's key did not sign the end of this snapshot")
