"""Two faults, two classes: their bad octets, and our misuse of the codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replica.model.handle.codes import ResponseCode

if TYPE_CHECKING:
    from replica.model.handle.message import Envelope


class ProtocolFault(Exception):
    """The peer's octets do not follow the protocol.

    Args:
        detail: for a person.
        code: what to answer with; None means silence (nothing that could be answered was read).
        envelope: as far as it was read, so that the answer can carry its request id and version.
        op_code: of the faulty message, 0 when unknown.
    """

    def __init__(
        self,
        detail: str,
        code: ResponseCode | None = ResponseCode.PROTOCOL_ERROR,
        envelope: Envelope | None = None,
        op_code: int = 0,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.envelope = envelope
        self.op_code = op_code

    @property
    def request_id(self) -> int | None:
        return self.envelope.request_id if self.envelope else None

    def within(self, envelope: Envelope, op_code: int) -> ProtocolFault:
        """The same fault, told by someone who knows which message it was in."""
        return ProtocolFault(self.detail, self.code, self.envelope or envelope, self.op_code or op_code)


class CodecMisuse(ValueError):
    """Our own code asked for something that has no octets: a value out of range, a record over its limits."""


def within_u32(name: str, number: int) -> int:
    """The number, when it fits its field. Raises CodecMisuse."""
    if not 0 <= number <= 0xFFFFFFFF:
        raise CodecMisuse(f"{name} is 0 to 4294967295, not {number}")
    return number
