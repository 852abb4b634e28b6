"""Asks a node that was handed its epoch what it answers itself, for records that were changed here (hand_back.py judges).

Which records: of the change log of our own epoch, by its boundaries, so that a long one is not read as a whole. They are chosen
once a hand-back; how each was held then, and is held now, both count as right: the node registers again meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

from replica.model.batch import OP_DELETE, open_batch
from replica.model.group_state import GroupState
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.values import Content, content_of, decode_record
from replica.model.identifier import key_text
from replica.model.node import Endpoint
from replica.model.position import Position
from replica.native import split
from replica.store.edge_store import SourceStore
from replica.takeover.hand_back import RECORDS_MAX, Answers, Ask, answers_of, spread

IDENTIFIERS = b"h"  # keys that begin so are resolved; routes and documents are not
BATCHES_LOOKED_MAX = 256  # the newest ones, for a deletion
LOOKS_MAX, LOOK_S = 3, 0.2  # of one comparison: our copy may be a moment behind what the node registers
PROTOCOLS = ("udp", "tcp")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A record to be asked for, and what was held when it was chosen."""

    name: str
    key: bytes
    held: Content


class Comparer:
    """Of one source.

    Args:
        endpoints: where its node answers, as it is known here.
        ask: None: nobody can ask.
    """

    def __init__(self, store: SourceStore, endpoints: Callable[[], Sequence[Endpoint]], ask: Ask | None) -> None:
        self._store, self._endpoints, self._ask = store, endpoints, ask
        self._granted: Position | None = None
        self._chosen: tuple[Chosen, ...] = ()

    async def compare(self, state: GroupState) -> Answers:
        """One comparison. Raises ZaibeiError: our store cannot be read."""
        if self._granted != state.granted:
            self._chosen = await asyncio.to_thread(lambda: tuple(self._choose(state)))
            self._granted = state.granted
        servers = servers_of(self._endpoints())
        if not self._chosen:
            return Answers(why_none="nothing was registered here, or the change log no longer holds it")
        if not servers or self._ask is None:
            return Answers(why_none="no address of its own resolver is known")
        said = await asyncio.gather(*(self._said(self._ask, server) for server in servers.values()))
        return answers_of([one.name for one in self._chosen], dict(zip(servers, said, strict=True)))

    async def _said(self, ask: Ask, server: Sequence[Endpoint]) -> dict[str, bool | None]:
        """Name -> it is answered as it is held here; None: not answered."""
        found: dict[str, bool | None] = {}
        waiting = self._chosen
        for look in range(LOOKS_MAX):
            if look:
                await asyncio.sleep(LOOK_S)
            before = await asyncio.to_thread(self._held, waiting)
            told = await ask(server, [one.name for one in waiting])
            after = await asyncio.to_thread(self._held, waiting)
            for one, was, content, now in zip(waiting, before, told, after, strict=True):
                found[one.name] = None if content is None else content in (one.held, was, now)
            waiting = tuple(one for one in waiting if found[one.name] is False)
            if not waiting:
                break
        return found

    # -- what to ask for; blocks

    def _choose(self, state: GroupState) -> Iterator[Chosen]:
        keys = list(dict.fromkeys(self._changed(state)))
        records, _ = self._store.get_many(keys)
        for key, record in zip(keys, records, strict=True):
            if record is None:
                yield Chosen(key_text(key), key, frozenset())
            elif record:  # else it is quarantined: nothing to hold an answer against
                with suppress(ProtocolFault, UnicodeDecodeError):
                    held = decode_record(record)
                    yield Chosen(held.spelling.decode() if held.spelling else key_text(key), key, content_of(held.values))

    def _changed(self, state: GroupState) -> Iterator[bytes]:
        """Keys of identifiers changed in the epochs between the source's own: evenly chosen, the newest, and a deletion."""
        ledger, granted = state.ledger, state.granted
        if ledger is None or granted is None:
            return
        _, boundaries = self._store.boundaries()
        ours = [
            before
            for before, after in pairwise(boundaries)
            if ledger.common.epoch < after.epoch < granted.epoch and after.seq > before.seq
        ]
        each = max(1, RECORDS_MAX // max(1, len(ours)))
        for place in spread(len(ours)):
            changed = self._batch(ours[place])
            yield from (changed[one][0] for one in spread(len(changed), each))
        for before in reversed(ours[-BATCHES_LOOKED_MAX:]):
            if deleted := [key for key, op in self._batch(before) if op == OP_DELETE]:
                yield deleted[-1]
                return

    def _batch(self, before: Position) -> list[tuple[bytes, int]]:
        """Key and operation of each identifier changed behind a boundary; none where the log no longer holds it."""
        raw = self._store.batch_after(before)
        if raw is None:
            return []
        keys, _, ops = split(open_batch(raw, verify=False).columns)
        return [(key, op) for key, op in zip(keys, ops, strict=True) if key[:1] == IDENTIFIERS]

    def _held(self, chosen: Sequence[Chosen]) -> list[Content]:
        records, _ = self._store.get_many([one.key for one in chosen])
        return [_content(record) for record in records]


def _content(record: bytes | None) -> Content:
    with suppress(ProtocolFault):
        return content_of(decode_record(record).values) if record else frozenset()
    return frozenset()


def servers_of(endpoints: Sequence[Endpoint]) -> dict[str, list[Endpoint]]:
    """Endpoints of resolution by server: each address and port is asked by itself."""
    found: dict[str, list[Endpoint]] = {}
    for one in endpoints:
        address = f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}"
        if one.protocol in PROTOCOLS:
            found.setdefault(address, []).append(one)
    return found
