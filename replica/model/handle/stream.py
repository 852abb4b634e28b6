"""TCP: cutting complete messages out of a stream, several in one read or one in many."""

from __future__ import annotations

from replica.model.handle.codes import ENVELOPE_OCTETS, MESSAGE_OCTETS_MAX
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.message import decode_envelope
from replica.model.handle.wire import U32


class Deframer:
    """Cuts the messages of one connection.

    Args:
        octets_max: longest message after its envelope; a longer one ends the connection.

    `fault` is set when the stream cannot be followed any more; then everything else it brings is ignored: answer the fault
    (if it has a code) and close.
    """

    def __init__(self, octets_max: int = MESSAGE_OCTETS_MAX) -> None:
        self._octets_max = octets_max
        self._wanted = ENVELOPE_OCTETS  # octets before looking again is worth while
        self._parts: list[bytes] = []
        self._parts_octets = 0
        self.fault: ProtocolFault | None = None

    @property
    def octets_held(self) -> int:
        return self._parts_octets

    def feed(self, octets: bytes) -> list[bytes]:
        """Take what was read; complete messages come out in order, also those before a fault."""
        if self.fault is not None:
            return []
        if self._parts:
            self._parts.append(octets)
            self._parts_octets += len(octets)
            if self._parts_octets < self._wanted:
                return []  # a large message in small reads is joined once, not at every read
            octets = b"".join(self._parts)
        return self._cut(octets)

    def _cut(self, octets: bytes) -> list[bytes]:
        messages: list[bytes] = []
        at, end, self._wanted = 0, len(octets), ENVELOPE_OCTETS
        while end - at >= ENVELOPE_OCTETS:
            length = U32.unpack_from(octets, at + 16)[0]
            if length > self._octets_max:
                envelope = decode_envelope(octets[at : at + ENVELOPE_OCTETS])
                self.fault = ProtocolFault(f"a message of {length} octets is over {self._octets_max}", envelope=envelope)
                at = end
                break
            if end - at < ENVELOPE_OCTETS + length:
                self._wanted = ENVELOPE_OCTETS + length
                break
            messages.append(octets[at : at + ENVELOPE_OCTETS + length])
            at += ENVELOPE_OCTETS + length
        rest = octets[at:] if at else octets
        self._parts = [rest] if rest else []
        self._parts_octets = len(rest)
        return messages
