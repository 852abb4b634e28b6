"""Handle names: folding, parts, and which server of a site is asked.

Source: RFC 3651 §3, and HSv9 for the hash (all vectors agree).
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

from replica.model.handle.codes import HANDLE_OCTETS_MAX, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault

PREFIX_PREFIX = b"0.NA"  # names of the records of prefixes: 0.NA/88.118.8
ROOT = b"0.NA/0.NA"
HEARTBEAT = b"0"  # what the national SDK resolves to keep a connection alive


class HashOption(IntEnum):
    """Which part of a name chooses the server inside a site."""

    PREFIX = 0
    SUFFIX = 1
    WHOLE = 2


def fold(name: bytes) -> bytes:
    """Upper case for ASCII letters; other octets never change."""
    return name.upper()


def split_name(name: bytes) -> tuple[bytes, bytes]:
    """(prefix, suffix), split at the first slash. A name without a slash means `0.NA/<name>`."""
    prefix, slash, suffix = name.partition(b"/")
    return (prefix, suffix) if slash else (PREFIX_PREFIX, name)


def full_name(name: bytes) -> bytes:
    """The name with its prefix: `88.118` becomes `0.NA/88.118`."""
    return name if b"/" in name else PREFIX_PREFIX + b"/" + name


def check_name(name: bytes) -> bytes:
    """The name itself, when it may be asked for.

    Raises:
        ProtocolFault(INVALID_HANDLE): empty or over 2,048 octets.
    """
    if not 1 <= len(name) <= HANDLE_OCTETS_MAX:
        raise ProtocolFault(f"a handle has 1 to {HANDLE_OCTETS_MAX} octets, not {len(name)}", ResponseCode.INVALID_HANDLE)
    return name


def choice_hash(name: bytes, option: HashOption) -> int:
    """Hash of the chosen part of a name, 0 to 2^31.

    Source: HSv9: fold, MD5, last four octets as a signed number, its absolute value. (Java keeps the smallest number
    negative; here it is 2^31.)
    """
    folded = fold(name)
    if option is HashOption.PREFIX:
        folded = split_name(folded)[0]
    elif option is HashOption.SUFFIX:
        folded = split_name(folded)[1]
    return abs(int.from_bytes(hashlib.md5(folded, usedforsecurity=False).digest()[-4:], "big", signed=True))


def server_number(name: bytes, option: HashOption, servers: int) -> int:
    """Which server of a site answers for a name: 0..servers-1.

    Raises:
        CodecMisuse: a site without servers.
    """
    if servers < 1:
        raise CodecMisuse("a site has at least one server")
    return choice_hash(name, option) % servers
