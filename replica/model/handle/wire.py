"""Reading the protocol's octets: every length is checked before it is believed."""

from __future__ import annotations

import struct

from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault

U32 = struct.Struct(">I")
LENGTH_MAX = 0xFFFFFFFF


class Reader:
    """A cursor over octets of a peer. Each method moves it, or raises ProtocolFault with the reader's code."""

    __slots__ = ("at", "code", "end", "octets")

    def __init__(
        self, octets: bytes, at: int = 0, end: int | None = None, code: ResponseCode = ResponseCode.PROTOCOL_ERROR
    ) -> None:
        self.octets = octets
        self.at = at
        self.end = len(octets) if end is None else end
        self.code = code

    @property
    def rest(self) -> int:
        return self.end - self.at

    def fault(self, what: str) -> ProtocolFault:
        return ProtocolFault(f"{what} at octet {self.at} of {self.end}", self.code)

    def u8(self) -> int:
        if self.at >= self.end:
            raise self.fault("cut off")
        self.at += 1
        return self.octets[self.at - 1]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        at = self.at
        if at + 4 > self.end:
            raise self.fault("cut off")
        self.at = at + 4
        return U32.unpack_from(self.octets, at)[0]  # type: ignore[no-any-return]

    def take(self, count: int) -> bytes:
        at = self.at
        if count > self.end - at:
            raise self.fault(f"a length of {count} says too much")
        self.at = at + count
        return self.octets[at : at + count]

    def string(self) -> bytes:
        """u32 length and that many octets."""
        return self.take(self.u32())

    def count(self, items_max: int, item_octets_min: int) -> int:
        """A u32 count of items that must fit into the rest."""
        number = self.u32()
        if number > items_max:
            raise self.fault(f"{number} items are over the limit of {items_max}")
        if number * item_octets_min > self.end - self.at:
            raise self.fault(f"a count of {number} says too much")
        return number

    def done(self) -> None:
        if self.at != self.end:
            raise self.fault(f"{self.end - self.at} octets trail")


def string(octets: bytes) -> bytes:
    """u32 length and the octets."""
    return U32.pack(len(octets)) + octets


def pack_u32s(numbers: tuple[int, ...]) -> bytes:
    """u32 count and the numbers. Raises CodecMisuse."""
    try:
        return struct.pack(f">{len(numbers) + 1}I", len(numbers), *numbers)
    except struct.error as exc:
        raise CodecMisuse(f"an index is 0 to 4294967295: {exc}") from exc
