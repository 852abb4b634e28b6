"""Records of sources that do not live at this member: read at one that holds them, with the view that vouches for them there."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec

from replica.member.edge_asks import ask
from replica.member.edge_peers import Peers
from replica.model.errors import Code, ZaibeiError
from replica.model.states import Authority, Freshness
from replica.model.view import FRESH_AGE_MS_MAX, SourceView
from replica.v1 import peer_pb2

READ_S_MAX = 0.5
KEYS_MAX = 10_000
Read = tuple[list[bytes | None], SourceView]


def answer_of(found: Read) -> peer_pb2.MemberAnswer:
    """A read for the asker."""
    values, view = found
    present = bytes(value is not None for value in values)
    return peer_pb2.MemberAnswer(values=[value or b"" for value in values], present=present, octets=msgspec.json.encode(view))


_decode_view = msgspec.json.Decoder(SourceView).decode  # made once: see replica/store/state_row.py


def read_of(answer: peer_pb2.MemberAnswer, keys: int, elapsed_ms: int) -> Read:
    """What another member read, older by the time it took to come. Raises ZaibeiError(MALFORMED)."""
    if len(answer.values) != keys or len(answer.present) != keys:
        raise ZaibeiError(Code.MALFORMED, f"{keys} records were asked for, {len(answer.values)} came")
    try:
        view = _decode_view(answer.octets)
    except (msgspec.DecodeError, msgspec.ValidationError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"the view does not parse: {exc}") from exc
    age_ms = None if view.age_ms is None else view.age_ms + elapsed_ms
    freshness = view.freshness
    if freshness is Freshness.FRESH and view.authority is Authority.SOURCE and (age_ms is None or age_ms > FRESH_AGE_MS_MAX):
        freshness = Freshness.STALE_BOUNDED  # it aged on its way
    values = [value if there else None for value, there in zip(answer.values, answer.present, strict=True)]
    return values, replace(view, age_ms=age_ms, freshness=freshness)


class Elsewhere:
    """Asks members that hold a source, the one that leads it first.

    Args:
        holders: numbers of members that hold a source and are connected, in the order to ask.
    """

    def __init__(self, peers: Peers, holders: Callable[[str], Sequence[int]]) -> None:
        self._peers, self._holders = peers, holders

    async def read(self, wants: Mapping[str, Sequence[bytes]]) -> dict[str, Read]:
        """Of several sources at once; those that nobody could read in time are left out."""
        names = list(wants)
        reads = await asyncio.gather(*(self._read(name, wants[name]) for name in names), return_exceptions=True)
        found = {}
        for name, read in zip(names, reads, strict=True):
            if isinstance(read, ZaibeiError | TimeoutError):
                continue
            if isinstance(read, BaseException):
                raise read
            found[name] = read
        return found

    async def _read(self, source: str, keys: Sequence[bytes]) -> Read:
        """At the first that vouches for what it has; else what one of them has that does not."""
        trouble = ZaibeiError(Code.UNREACHABLE, f"no member that holds {source} is reached", retry=True)
        poor: Read | None = None
        for member in self._holders(source):
            began_s = time.monotonic()
            question = peer_pb2.MemberQuestion(read=peer_pb2.MemberRead(source=source, keys=keys))
            try:
                async with asyncio.timeout(READ_S_MAX):
                    answer = await ask(self._peers, member, question, READ_S_MAX)
                found = read_of(answer, len(keys), math.ceil((time.monotonic() - began_s) * 1_000))
                if found[1].ready and not found[1].leader_silent:
                    return found
                poor = poor or found
            except ZaibeiError as exc:
                trouble = exc
            except TimeoutError:
                trouble = ZaibeiError(Code.UNREACHABLE, f"member {member} did not read {source} in time", retry=True)
        if poor is None:
            raise trouble
        return poor
