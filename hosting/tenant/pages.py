"""Listing in pages: the range of a prefix, and tokens that say where the next page begins. Pure."""

from __future__ import annotations

from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import subtree

TOKEN_FORMAT = b"\x01"
KEY_OCTETS_MAX = 4_096


def page_range(prefix: bytes, token: bytes) -> tuple[bytes, bytes]:
    """Key range [from, to) that a page is taken from.

    Args:
        prefix: key part; the page holds it and everything below it.
        token: of the page before; empty: the first page.
    Raises:
        ZaibeiError(MALFORMED): not a token of this prefix.
    """
    start, stop = subtree(prefix)
    if not token:
        return start, stop
    after = token[1:]
    if token[:1] != TOKEN_FORMAT or not start <= after < stop or len(after) > KEY_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, "not a page token of this prefix: begin again without one")
    return after + b"\0", stop


def token_after(key: bytes) -> bytes:
    """The token of a page that ends with this key."""
    return TOKEN_FORMAT + key
