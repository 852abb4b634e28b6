"""What a source says when it ended its writing for a planned switchover, or why it did not."""

from __future__ import annotations

from dataclasses import dataclass

from replica.model.digest import ContentDigest
from replica.v1 import source_pb2

REFUSED_CHARS_MAX = 400


@dataclass(frozen=True, slots=True)
class Drained:
    """The source's statement about one act of the ladder.

    Args:
        act: of the ladder, that the source was asked for.
        digest: of its content where its history ends; None: it refused.
        refused: why it goes on writing, in its words.
    """

    act: str
    digest: ContentDigest | None
    refused: str = ""

    def to_wire(self) -> source_pb2.Drained:
        """As it travels."""
        digest = None if self.digest is None else self.digest.to_wire()
        return source_pb2.Drained(act=self.act, digest=digest, refused=self.refused[:REFUSED_CHARS_MAX])

    @staticmethod
    def from_wire(message: source_pb2.Drained) -> Drained:
        """Raises ZaibeiError(MALFORMED): a statement with neither an end nor a refusal, or one that does not parse."""
        if message.refused:
            return Drained(message.act, None, message.refused[:REFUSED_CHARS_MAX])
        return Drained(message.act, ContentDigest.from_wire(message.digest))
