"""A question as every front understands it, and the answer every front can write."""

from __future__ import annotations

from typing import NamedTuple

from hosting.answer.standing import Standing


class Question(NamedTuple):
    """One resolution. A named tuple: one is made for each request on the hot path, a third of the cost of a dataclass.

    Only values that anyone may read are ever answered, whatever the question's public-only flag: these fronts hold no users, so
    nobody is authenticated here.

    Args:
        handle: the name as asked, UTF-8; echoed.
        indexes: wanted indexes; `types`: wanted types; both empty: all, both given: the union.
        authoritative: AT: only an authority may answer.
        refer: False: no 302 or 303, please.
    """

    handle: bytes
    indexes: tuple[int, ...] = ()
    types: tuple[bytes, ...] = ()
    authoritative: bool = False
    refer: bool = True


class Answer(NamedTuple):
    """One answer.

    Args:
        code: a response code of the Handle protocol.
        octets: 1, 302, 303: u32 count and Handle value records; other codes: a text in UTF-8, may be empty.
        standing: who vouches; None where no source was involved.
        referral: handle to resolve for the sites of a 302 (an HS_SERV name), empty when the values are sites.
    """

    code: int
    octets: bytes
    standing: Standing | None = None
    referral: bytes = b""
