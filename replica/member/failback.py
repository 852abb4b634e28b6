"""A source's failback on this member, joined: what decides, what reads the source, what commits. Nothing is decided here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from replica.consensus.group import GroupLog
from replica.feed.edge_driver import FeedDriver
from replica.feed.meeting import grant_entry
from replica.member.edge_hand_back import Comparer
from replica.member.failback_ledger import LedgerKeeper
from replica.member.failback_runner import FailbackRunner
from replica.member.group_port import propose_and_wait
from replica.model.group_state import GroupState
from replica.model.node import Endpoint
from replica.model.signing import Signer
from replica.store.edge_store import SourceStore
from replica.takeover.edge_runner import TakeoverRunner, boottime_ns
from replica.takeover.failback import Failback
from replica.takeover.hand_back import Ask
from replica.v1 import entry_pb2, source_pb2

ENTRY_FORMAT = 1
COMMIT_S_MAX = 10.0


class Copy(Protocol):
    """What is needed of a source's copy."""

    store: SourceStore
    log: GroupLog
    driver: FeedDriver
    runner: TakeoverRunner

    def endpoints(self) -> Sequence[Endpoint]: ...

    @property
    def lineage(self) -> bytes: ...

    @property
    def signer(self) -> Signer: ...


def failback_of(copy: Copy, source: str, folder: Path, ask: Ask | None) -> FailbackRunner:
    """The runner of one source; start it when the source's log has started.

    Args:
        folder: where files may lie that sort a ledger.
        ask: asks a node for what it answers itself; None: nobody does.
    """

    async def commit(entry: entry_pb2.Entry) -> None:
        entry.format, entry.admitted_ms = ENTRY_FORMAT, time.time_ns() // 1_000_000
        await propose_and_wait(copy.log, entry, COMMIT_S_MAX)

    def grant(state: GroupState, reason: str) -> source_pb2.Grant:
        return grant_entry(state, state.position, copy.lineage, reason, copy.signer).grant

    def alive() -> bool:
        """Its service answers our probes; where nothing is known to probe, its feed alone speaks for it."""
        detector = copy.runner.detector
        return not copy.endpoints() or (detector.probe_answered_ns is not None and not detector.probe_failures_running)

    comparer = Comparer(copy.store, copy.endpoints, ask)
    keeper = LedgerKeeper(copy.store, copy.driver, folder, commit)
    return FailbackRunner(
        Failback(source, grant),
        copy.driver,
        keeper,
        state=copy.store.state,
        leads=lambda: copy.log.leader,
        service_alive=alive,
        age_ms=lambda: copy.driver.age.age_ms(boottime_ns()),
        boottime_ns=boottime_ns,
        subscribe=copy.store.subscribe,
        commit=commit,
        compare=comparer.compare,
    )
