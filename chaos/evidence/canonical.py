"""Canonical JSON lines: one value has one spelling, so that a hash over octets is a hash over what they say.

Keys sorted, no spaces, everything outside ASCII as \\uXXXX, whole numbers of at most 64 bits, never a fraction: programs of other
languages write the same octets.
"""

from __future__ import annotations

import json
from typing import Any

from replica.model.errors import Code, ZaibeiError

LINE_OCTETS_MAX = 64 * 1024
DEPTH_MAX = 8
NUMBER_MAX = 2**63 - 1


def encode(value: dict[str, Any]) -> bytes:
    """One line with its end. Raises ZaibeiError(MALFORMED): a fraction, too deep, too long."""
    _check(value, DEPTH_MAX)
    octets = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"
    if len(octets) > LINE_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a line of {len(octets)} octets, at most {LINE_OCTETS_MAX}")
    return octets


def decode(octets: bytes) -> dict[str, Any]:
    """One line with its end. Raises ZaibeiError(VERIFICATION_FAILED): not the one canonical spelling of an object."""
    if len(octets) > LINE_OCTETS_MAX:
        raise ZaibeiError(Code.VERIFICATION_FAILED, f"it is {len(octets)} octets long, at most {LINE_OCTETS_MAX}")
    try:
        value = json.loads(octets)
        same = isinstance(value, dict) and encode(value) == octets
    except (ValueError, RecursionError) as exc:
        raise ZaibeiError(Code.VERIFICATION_FAILED, "it is no JSON") from exc
    except ZaibeiError as exc:
        raise ZaibeiError(Code.VERIFICATION_FAILED, exc.trouble.message) from exc
    if not same:
        raise ZaibeiError(Code.VERIFICATION_FAILED, "it is not spelled canonically")
    found: dict[str, Any] = value
    return found


def _check(value: object, depth: int) -> None:
    if isinstance(value, float) or (isinstance(value, int) and abs(value) > NUMBER_MAX):
        raise ZaibeiError(Code.MALFORMED, f"{value!r}: whole numbers of at most 64 bits only")
    if isinstance(value, dict | list):
        if not depth:
            raise ZaibeiError(Code.MALFORMED, f"deeper than {DEPTH_MAX} levels")
        for inner in [*value.values()] if isinstance(value, dict) else value:
            _check(inner, depth - 1)
