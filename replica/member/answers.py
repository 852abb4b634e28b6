"""What answering reads of a member: the catalog of all groups, and records with the view that vouches for them.

Values, position and generation are read together by the store; age is taken after them (SEMANTICS 4).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from replica.feed.freshness import CopyAge, Vouching, freshness_of
from replica.model.blocks import Blocks, InForce
from replica.model.catalog import Catalog, Owner
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState, OverlaySites
from replica.model.identifier import PrefixTree, ancestors
from replica.model.node_site import left_for, site_of_node
from replica.model.position import Position
from replica.model.states import FeedState, Mode
from replica.model.view import LEADER_SILENCE_MS_MAX, SourceView

READS_MAX = 3  # of one question while generations are switched
MISSING_UNKNOWN = frozenset(FeedState) - {FeedState.FLOWING}  # what the source has now may not be here: no "not found"


class Readable(Protocol):
    """A source's store, as far as answering reads it."""

    def state(self) -> GroupState: ...

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], Position]: ...


class SourceAnswers:
    """Records of one source with the view that vouches for them.

    Args:
        horizon_ms: age beyond which a copy is no longer answered before a takeover.
        probes_alive: what our own probes found: True, False, None not known.
        in_service: False once this group went out of service (damaged store), or this member forgot what it had promised.
        leader_silent_ms: since the group's leader was heard; 0: a group of one member is led here.
        boottime_ns: CLOCK_BOOTTIME.
        wall_ms: Unix milliseconds, for the end of orders to block.
    """

    def __init__(
        self,
        store: Readable,
        age: CopyAge,
        horizon_ms: int,
        *,
        probes_alive: Callable[[], bool | None],
        in_service: Callable[[], bool],
        boottime_ns: Callable[[], int],
        leader_silent_ms: Callable[[], int] = lambda: 0,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store, self._age, self._horizon_ms = store, age, horizon_ms
        self._probes_alive, self._in_service, self._boottime_ns = probes_alive, in_service, boottime_ns
        self._leader_silent_ms = leader_silent_ms
        self._wall_ms, self._in_force = wall_ms, InForce()

    def read(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], SourceView]:
        """Values in the order of the keys, and the view that holds for them: what the group had decided before they were read,
        and the age after it. Raises ZaibeiError when the store cannot be read.

        Entries are applied by another thread meanwhile. Values of a generation with a gap must not get the view of the whole one
        that a switch puts in its place: then they are read again.
        """
        if not keys:
            return [], self.view()
        for _ in range(READS_MAX):
            state = self._store.state()
            values, position = self._store.get_many(keys)
            if self._store.state().generation == state.generation:
                return values, self._view(state, position)
        raise ZaibeiError(Code.BUSY, f"{state.source}: generations are being switched", retry=True)

    def view(self) -> SourceView:
        """The present view."""
        state = self._store.state()
        return self._view(state, state.position)

    def _view(self, state: GroupState, position: Position) -> SourceView:
        self._age.applied(position)  # on a member that follows nobody else says so
        age_ms = self._age.age_ms(self._boottime_ns())
        silent_ms = self._leader_silent_ms()
        vouching = Vouching(
            authority=state.answers_as,
            leader_silent_ms=silent_ms,
            probes_alive=self._probes_alive(),
            horizon_ms=self._horizon_ms,
        )
        return SourceView(
            source=state.source,
            mode=state.mode,
            generation=state.generation,
            position=position,
            age_ms=age_ms,
            freshness=freshness_of(age_ms, vouching),
            authority=state.answers_as,
            feed=state.feed,
            leader_silent=silent_ms > LEADER_SILENCE_MS_MAX,
            verified=state.verified,
            ready=state.ready and self._in_service(),
            gaps=state.prefixes if state.feed in MISSING_UNKNOWN else (),
            blocks=self._in_force.at(state.blocks, self._wall_ms()) if state.blocks else (),
        )


def catalog_of(states: Iterable[GroupState], own_site: bytes, version: int, moved: Mapping[bytes, str] | None = None) -> Catalog:
    """The catalog out of all groups' committed ownership, overlays and blocks.

    A shadow overlay (a drill's) never stands for a real prefix. Where two groups claim one prefix, the configuration check
    refused the start, so the first claim stands.

    Args:
        moved: prefixes that moved to another source -> who answers for them now (model/prefix_moves.py); over all else.
    """
    owners: PrefixTree[Owner] = PrefixTree()
    overlays: dict[bytes, OverlaySites] = {}
    blocked = []
    states = list(states)
    for state in states:
        blocked += [one for order in state.blocks for one in order.blocked()]
        keeps_case = frozenset(state.case_sensitive)
        for prefix in (*state.prefixes, *state.case_sensitive):
            if owners.get(prefix) is None:
                case = any(above in keeps_case for above in ancestors(prefix))
                owners.put(prefix, Owner(state.source, state.mode, case_sensitive=case))
        for overlay in state.overlays:
            overlays.setdefault(overlay.prefix, overlay)
        if site := site_of_node(left_for(state)):
            for prefix in state.prefixes:
                overlays.setdefault(prefix, OverlaySites(prefix, (site,), 1, state.authority_act))
    modes = {state.source: state.mode for state in states}
    cases = {move.prefix: move.case_sensitive for state in states for move in state.moves}
    for prefix, source in (moved or {}).items():
        owners.put(prefix, Owner(source, modes.get(source, Mode.RECORDS), case_sensitive=cases.get(prefix, False)))
    return Catalog(version, owners, overlays, own_site, Blocks(blocked))


def catalog_mark(states: Mapping[str, GroupState]) -> tuple[object, ...]:
    """Equal as long as no catalog made of these states would differ; cheap, for each apply."""
    return tuple(
        (
            name,
            state.ownership_version,
            state.prefixes,
            state.case_sensitive,
            state.mode,
            state.overlays,
            state.blocks,
            state.moves,
            left_for(state),
        )
        for name, state in states.items()
    )
