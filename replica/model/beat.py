"""Datagram beats: a source host's heads and the newest nonces it got, authenticated with the stream's key. Pure codec.

Octets (big-endian): version 1 | stream id 8 | counter u64 | n u8 | n x (name length u8, name, epoch u64, seq u64, lineage 16,
chain 32, nonce 16) | first 16 octets of HMAC-SHA256(key, all before). Stream id = first 8 octets of
SHA-256("zaibei-beat-1\\0" | key), so that a receiver finds the key without trusting a name. The counter rises with each beat of a
key: replayed ones count for nothing.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position

BEAT_VERSION = 1
BEAT_OCTETS_MAX = 1_200  # stays whole on any path; room for 8 heads with names of 60 octets
HEADS_MAX = 8
NAME_OCTETS_MAX = 63
NONCE_OCTETS = 16
TAG_OCTETS = 16
STREAM_ID_OCTETS = 8
_FIXED = struct.Struct(">B8sQB")
_HEAD = struct.Struct(">QQ16s32s16s")


@dataclass(frozen=True, slots=True)
class HeadBeat:
    """One source's head, and the newest nonce it got from us."""

    source: str
    head: Position
    nonce: bytes


@dataclass(frozen=True, slots=True)
class DatagramBeat:
    """A beat of a host. `counter` rises with each."""

    stream: bytes
    counter: int
    heads: tuple[HeadBeat, ...]


def stream_id(key: bytes) -> bytes:
    """8 octets by which a receiver finds the key."""
    return sha256(b"zaibei-beat-1\0" + key).digest()[:STREAM_ID_OCTETS]


def encode_beat(key: bytes, counter: int, heads: Sequence[HeadBeat]) -> bytes:
    """Raises ZaibeiError(MALFORMED): more heads or longer names than a datagram takes (the caller splits)."""
    if not 1 <= len(heads) <= HEADS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a beat carries 1 to {HEADS_MAX} heads, not {len(heads)}")
    out = [_FIXED.pack(BEAT_VERSION, stream_id(key), counter, len(heads))]
    for beat in heads:
        name = beat.source.encode()
        if not 1 <= len(name) <= NAME_OCTETS_MAX or len(beat.nonce) != NONCE_OCTETS:
            raise ZaibeiError(Code.MALFORMED, f"a beat's name has 1 to {NAME_OCTETS_MAX} octets, its nonce {NONCE_OCTETS}")
        out.append(bytes((len(name),)) + name)
        out.append(_HEAD.pack(beat.head.epoch, beat.head.seq, beat.head.lineage, beat.head.chain, beat.nonce))
    body = b"".join(out)
    return body + hmac.digest(key, body, "sha256")[:TAG_OCTETS]


def peek_stream(datagram: bytes) -> bytes | None:
    """Stream id of something that may be a beat; None when it is not one."""
    if not _FIXED.size + TAG_OCTETS < len(datagram) <= BEAT_OCTETS_MAX or datagram[0] != BEAT_VERSION:
        return None
    return datagram[1 : 1 + STREAM_ID_OCTETS]


def decode_beat(key: bytes, datagram: bytes) -> DatagramBeat:
    """Check the tag, then read.

    Raises:
        ZaibeiError(NOT_AUTHORISED): the tag is not this key's.
        ZaibeiError(MALFORMED): authentic octets that break the format: the sender's fault.
    """
    if peek_stream(datagram) is None:
        raise ZaibeiError(Code.MALFORMED, "not a beat of version 1")
    body, tag = datagram[:-TAG_OCTETS], datagram[-TAG_OCTETS:]
    if not hmac.compare_digest(hmac.digest(key, body, "sha256")[:TAG_OCTETS], tag):
        raise ZaibeiError(Code.NOT_AUTHORISED, "a beat's tag is not that of its stream's key")
    _, stream, counter, count = _FIXED.unpack_from(body)
    heads, at = [], _FIXED.size
    try:
        for _ in range(count):
            name = body[at + 1 : at + 1 + body[at]]
            at += 1 + body[at]
            epoch, seq, lineage, chain, nonce = _HEAD.unpack_from(body, at)
            at += _HEAD.size
            heads.append(HeadBeat(name.decode(), Position(lineage, epoch, seq, chain), nonce))
    except (struct.error, IndexError, UnicodeDecodeError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"a beat that ends too early or names no source: {exc}") from exc
    if at != len(body) or not 1 <= count <= HEADS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a beat of {count} heads with {len(body) - at} octets behind them")
    return DatagramBeat(stream, counter, tuple(heads))
