"""Publisher: a registry publishes from its own code, without knowing of asyncio, batches or positions.

Changes wait in memory until `commit`; what `commit` returned for is on this machine's disk, and a background thread carries it to
the copy. Every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from replica.agent.config import SourceConfig
from replica.agent.edge_clocks import boottime_s
from replica.agent.edge_follow import Taken
from replica.agent.edge_log import AgentLog
from replica.agent.edge_seal import Seal
from replica.agent.nature import Transaction
from replica.agent.records import document_of, record_of, site_from_json, value_from_json
from replica.agent.rpo import RpoWindow
from replica.agent.write_lease import LeaseTimes
from replica.client.edge_agent import Address, Source, load_source_config
from replica.client.edge_follow import Follower, Way, ways_of
from replica.client.guard import Guard, LeaseRow
from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue
from replica.model.identifier import document_key
from replica.model.position import Position
from replica.v1 import source_pb2

PENDING_OCTETS_MAX = 256 * 1024 * 1024  # not yet committed
ROOM_WAIT_S = 1.0
RPO_LOOK_S = 0.01
CLOSE_S = 1.0  # for what still waited when the loop closed
START_S_MAX = 30.0

When = Literal["block", "raise"]
Values = Mapping[str, str] | Sequence[HandleValue | Mapping[str, Any]]


class Receipt:
    """What became of a commit. `position`: the boundary after it, on this machine's disk."""

    def __init__(self, position: Position, agent: AgentLog, loop: asyncio.AbstractEventLoop) -> None:
        self.position = position
        self._agent, self._loop = agent, loop

    @property
    def done(self) -> bool:
        """The copy has it on a majority of its disks."""
        return self._agent.covered(self.position)

    def wait(self, timeout_s: float) -> bool:
        """Block until `done`. False: not within the time, or the publisher was closed; it may still come."""
        if self.done or self._loop.is_closed():
            return self.done
        waiting = asyncio.run_coroutine_threadsafe(self._agent.wait_receipt(self.position, timeout_s), self._loop)
        try:
            return waiting.result(timeout_s + CLOSE_S)
        except (CancelledError, TimeoutError):
            return self.done

    def __repr__(self) -> str:
        return f"Receipt({self.position.short()}, {'on a majority' if self.done else 'waiting'})"


class Publisher:
    """Open with the path of a source's TOML file (without [[input]]), or a checked SourceConfig.

    Args:
        when_full: "block" until the copy has caught up when the spool is full, or "raise" ZaibeiError(BUSY).
        rpo_s: with it, `commit` does not return while an earlier commit waits longer than this for its receipt (0: for its
            own); the registry's acknowledgement waits with it.
        when_behind: "block", or "raise" ZaibeiError(BUSY) for what *is* on disk.
    Raises:
        ZaibeiError: the configuration, the folder or an address cannot be used; nothing is running then.
    """

    def __init__(
        self,
        config: str | Path | SourceConfig,
        *,
        when_full: When = "block",
        rpo_s: float | None = None,
        when_behind: When = "block",
    ) -> None:
        self._config = config if isinstance(config, SourceConfig) else load_source_config(Path(config))
        if self._config.inputs:
            raise ZaibeiError(
                Code.INVALID_CONFIG, "a source has [[input]] files or a Publisher, not both: their changes would fight"
            )
        self._when_full, self._when_behind = when_full, when_behind
        self._rpo = None if rpo_s is None else RpoWindow(rpo_s)
        self._ended = threading.Event()
        self._pending: list[Change] = []
        self._octets = 0
        self._lock = threading.Lock()
        self._commits = threading.Lock()
        self._source = Source.open(self._config)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._failures: list[ZaibeiError] = []
        self._following: set[Future[Position]] = set()
        self._closed = False
        self._guard: Guard | None = None
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()
        if not self._started.wait(START_S_MAX):
            raise ZaibeiError(Code.UNKNOWN, f"the publisher did not start within {START_S_MAX} s", definite=False)
        for failure in self._failures:
            self._source.close()
            raise failure

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except ZaibeiError as exc:
            self._failures.append(exc)
        finally:
            self._started.set()
            self._end_calls()
            self._loop.close()

    def _end_calls(self) -> None:
        """Whoever still waits for this loop on another thread is told that it ended."""
        waiting = asyncio.all_tasks(self._loop)
        for task in waiting:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))

    async def _serve(self) -> None:
        async with self._source.running():
            self._started.set()
            await self._stop.wait()

    # ------------------------------------------------------------------------------------------------------- changes

    def put(self, identifier: str, values: Values) -> None:
        """Register or replace an identifier.

        Args:
            values: {"URL": "…", …} (indexes 1, 2, … in that order), or values as the JSON API writes them, or HandleValues.
        Raises:
            ZaibeiError(MALFORMED, NOT_OWNER): this change was not taken.
        """
        key, spelling = self._config.naming.key(identifier)
        self._add(Change(OP_PUT, key, record_of(_values(values), spelling)))

    def delete(self, identifier: str) -> None:
        """Remove an identifier; harmless when it is not there."""
        self._add(Change(OP_DELETE, self._config.naming.key(identifier)[0]))

    def put_route(
        self,
        prefix: str,
        sites: Sequence[Mapping[str, Any]] = (),
        *,
        service: str = "",
        ttl: int = 300,
        values: Values = (),
    ) -> None:
        """Say where a prefix is served.

        Args:
            sites: {"address": "192.0.2.1", "tcp": 2641, "udp": 2641} or whole sites of the JSON API.
            service: name of a service handle instead of, or beside, sites.
            values: as of `put`, instead of both: for what they cannot say, as who serves all prefixes below (HS_SITE.PREFIX).
        Raises:
            ZaibeiError(MALFORMED, NOT_OWNER): this change was not taken.
        """
        if values and (sites or service):
            raise ZaibeiError(Code.MALFORMED, "a route is given as sites and service, or as values")
        found = [HandleValue(index, b"HS_SITE", site_from_json(site), ttl=ttl) for index, site in enumerate(sites, 1)]
        if service:
            found.append(HandleValue(len(found) + 1, b"HS_SERV", service.encode(), ttl=ttl))
        self._add(Change(OP_PUT, self._config.naming.route_key(prefix), record_of(found or _values(values))))

    def delete_route(self, prefix: str) -> None:
        self._add(Change(OP_DELETE, self._config.naming.route_key(prefix)))

    def put_document(self, kind: str, ident: str, body: object) -> None:
        """Deposit a business document; `body` is anything JSON can hold."""
        self._add(Change(OP_PUT, document_key(kind, ident), document_of(body)))

    def delete_document(self, kind: str, ident: str) -> None:
        self._add(Change(OP_DELETE, document_key(kind, ident)))

    def _add(self, change: Change) -> None:
        size = len(change.key) + len(change.value)
        with self._lock:
            if self._closed:
                raise ZaibeiError(Code.STOPPING, "the publisher is closed")
            if self._octets + size > PENDING_OCTETS_MAX:
                raise ZaibeiError(Code.BUSY, f"{self._octets} octets wait for commit(): commit oftener", retry=True)
            self._pending.append(change)
            self._octets += size

    def commit(self) -> Receipt:
        """Publish what was put and deleted so far, as one transaction.

        Returns:
            A receipt; its position is on this machine's disk now.
        Raises:
            ZaibeiError(BUSY): the spool is full and `when_full` is "raise"; the changes wait for the next commit.
            ZaibeiError(DISK_FULL, DISK_FAILED): the changes wait for the next commit.
            ZaibeiError(FENCED): the copy registers, or is about to: the changes are forgotten. Roll back, send the client there.
        """
        with self._commits:
            with self._lock:
                changes, octets = self._pending, self._octets
                self._pending, self._octets = [], 0
            try:
                position = self._append(changes)
            except ZaibeiError as exc:
                if exc.code is not Code.FENCED:  # after the return they would go over newer ones that were registered with us
                    with self._lock:
                        self._pending, self._octets = changes + self._pending, octets + self._octets
                raise
            receipt = Receipt(position, self._source.agent, self._loop)
            self._hold_back(receipt)
            return receipt

    def _hold_back(self, receipt: Receipt) -> None:
        """Back-pressure: the copy is too far behind, or silent, for another acknowledgement."""
        if self._rpo is None:
            return
        with self._lock:
            self._rpo.committed(receipt.position, boottime_s())
        while not self._closed:
            with self._lock:
                self._rpo.covered(self._source.agent.receipted)
                oldest, age_s = self._rpo.waits_for(boottime_s()), self._rpo.age_s(boottime_s())
            if oldest is None:
                return
            if self._when_behind == "raise":
                text = f"on disk, but the copy lacks changes for {age_s:.1f} s: do not acknowledge yet"
                raise ZaibeiError(Code.BUSY, text, retry=True)
            self._ended.wait(RPO_LOOK_S)
        raise ZaibeiError(Code.STOPPING, "the publisher was closed while the copy was behind")

    @property
    def rpo_age_s(self) -> float | None:
        """How long the oldest commit waits for its receipt; None: no `rpo_s` was given."""
        if self._rpo is None:
            return None
        with self._lock:
            self._rpo.covered(self._source.agent.receipted)
            return self._rpo.age_s(boottime_s())

    def _append(self, changes: Sequence[Change]) -> Position:
        while True:
            try:
                return self._source.agent.append([Transaction(changes)])[0]
            except ZaibeiError as exc:
                if exc.code is not Code.BUSY or self._when_full == "raise":
                    raise
                self._source.agent.wait_room(ROOM_WAIT_S)

    # ------------------------------------------------------------------------------------------------------ failback

    def follow(self, take: Taken, ways: Sequence[Way] = (), timeout_s: float | None = None) -> Position:
        """After a takeover: end our own writing, copy what was registered at the centre, until it is given back. Blocks.

        What was put and not committed waits for the commit after this.

        Args:
            take: takes changes of the centre into the registry's own records; keys and values as in a batch. It may be called
                again for the same ones after a crash.
            ways: members and their feed addresses; none: those we push to.
        Returns:
            First position of the epoch we write in from now on.
        Raises:
            ZaibeiError: UNKNOWN (not given back within the time; call again to go on), STOPPING (closed meanwhile).
        """
        source = self._source
        follower = Follower(source.agent, source.identity, ways or ways_of(self._config), source.trusts, take)
        with self._lock:  # `close` comes before or after this, never between
            if self._closed:
                raise ZaibeiError(Code.STOPPING, "the publisher is closed")
            running = asyncio.run_coroutine_threadsafe(follower.run(), self._loop)
            self._following.add(running)
        try:
            return running.result(timeout_s)
        except TimeoutError:
            running.cancel()
            text = f"not given back within {timeout_s} s: call again"
            raise ZaibeiError(Code.UNKNOWN, text, definite=False, retry=True) from None
        except CancelledError:
            raise ZaibeiError(Code.STOPPING, "the publisher was closed before it was given back", retry=True) from None
        finally:
            self._following.discard(running)

    # --------------------------------------------------------------------------------------------------------- guard

    def guard(
        self,
        times: LeaseTimes | None = None,
        *,
        rows: Sequence[LeaseRow] = (),
        on_alarm: Callable[[str], None] | None = None,
        strict: bool = False,
        on_drain: Callable[[], None] = lambda: None,
    ) -> Guard:
        """Open the guard of the registry's write path (replica/client/guard.py); closed with the publisher.

        Args:
            on_drain: called in a planned switchover when nothing is acknowledged any more: the last moment to commit here what
                was acknowledged and not committed yet.

        Raises:
            ZaibeiError(INVALID_CONFIG): the source's file does not say `fence = "write-path"`. CONFLICT: one is open already.
        """
        if self._config.nature.fence != source_pb2.Description.FENCE_WRITE_PATH:
            raise ZaibeiError(Code.INVALID_CONFIG, 'a guard needs fence = "write-path" in [source], so that the copy knows of it')
        if self._source.holder is not None:
            raise ZaibeiError(Code.CONFLICT, "this publisher has a guard already")
        guard = Guard(
            lambda: self.head.epoch,
            times,
            rows=rows,
            on_alarm=on_alarm,
            strict=strict,
            history=Seal(self._source.agent),
            on_drain=on_drain,
        )
        self._source.holder = self._guard = guard
        return guard

    # --------------------------------------------------------------------------------------------------------- state

    @property
    def head(self) -> Position:
        return self._source.agent.head()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where members may fetch from."""
        return self._source.addresses

    @property
    def fingerprint(self) -> str:
        """What the copy's operators pin."""
        return self._source.identity.fingerprint

    @property
    def certificate_pem(self) -> bytes:
        return self._source.identity.certificate_pem

    def close(self) -> None:
        """Stop the background thread. What was put but not committed is forgotten. Calling twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._ended.set()
            following = list(self._following)
        for one in following:  # first: a thread of theirs may hold the log, and wait for what comes over the loop
            one.cancel()
        if self._guard is not None:
            self._guard.close()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _values(values: Values) -> list[HandleValue]:
    if isinstance(values, Mapping):
        return [HandleValue(index, kind.encode(), text.encode()) for index, (kind, text) in enumerate(values.items(), 1)]
    return [value if isinstance(value, HandleValue) else value_from_json(value) for value in values]
