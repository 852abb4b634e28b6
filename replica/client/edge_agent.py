"""Joins a source's log with the feed: serves RegistrySource to pinned members, pushes to members, reads the files."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import threading
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, start_http_server

from replica.agent.config import SourceConfig, read_config
from replica.agent.edge_clocks import boottime_s
from replica.agent.edge_files import FileReader
from replica.agent.edge_log import AgentLog
from replica.agent.edge_metrics import AgentMetrics
from replica.agent.edge_receipts import ReceiptBook
from replica.feed.edge_pusher import Pusher
from replica.feed.edge_source_server import SourceService, add_source_service
from replica.feed.edge_tls import SERVER_OPTIONS, server_credentials
from replica.feed.source_port import LeaseHolder
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.edge_threads import ended_in_thread
from replica.model.edge_trust import LiveTrust
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Trusts
from replica.model.trust import Role
from replica.v1 import source_pb2

log = logging.getLogger("zaibei.agent")

SERVICE = source_pb2.DESCRIPTOR.services_by_name["RegistrySource"].full_name
HOUSEKEEPING_S = 1.0
STOP_GRACE_S = 2.0
OFFER_CHECK_S = 0.1
STATUS_FILE, LOCK_FILE, RECEIPTS_FOLDER = "status.json", "lock", "receipts"
CONFIG_OCTETS_MAX = 4 * 1024 * 1024


def load_source_config(path: Path) -> SourceConfig:
    """Read and check a source's file.

    Raises:
        ZaibeiError(INVALID_CONFIG): all faults at once. ZaibeiError(NOT_FOUND).
    """
    try:
        octets = path.read_bytes()
        if len(octets) > CONFIG_OCTETS_MAX:
            raise ZaibeiError(Code.INVALID_CONFIG, f"{path} is longer than {CONFIG_OCTETS_MAX} octets: not a source's file")
        root = tomllib.loads(octets.decode())
    except FileNotFoundError:
        raise ZaibeiError(
            Code.NOT_FOUND, f"{path} is not there. Next: write it; `zaibei source serve --help` shows one"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ZaibeiError(Code.INVALID_CONFIG, f"{path}: not TOML: {exc}") from None
    return read_config(root, str(path), path.absolute().parent)


def identity_of(config: SourceConfig) -> Identity:
    """The source's identity; made at first start."""
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return ensure_identity(config.data / "identity", config.nature.source)


def trusts_of(config: SourceConfig) -> Trusts:
    """The members that may copy this source. Raises ZaibeiError(INVALID_CONFIG): a file of [pki] is missing or wrong."""
    if config.trust is None:
        return config.pins
    return LiveTrust(lambda: config.pins, config.trust, frozenset({Role.MEMBER}))


@dataclass(frozen=True, slots=True)
class Address:
    """Where the feed of this source is offered; `port` as bound."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Source:
    """One source of this process: identity, log, reader. `open`, then `running`."""

    def __init__(self, config: SourceConfig, identity: Identity, agent: AgentLog, book: ReceiptBook, lock: int) -> None:
        self.config, self.identity, self.agent, self.book = config, identity, agent, book
        agent.keep_receipts(book)
        self.trusts = trusts_of(config)
        self.addresses: tuple[Address, ...] = ()
        self.pushers: list[Pusher] = []
        self.reader: FileReader | None = None
        self.holder: LeaseHolder | None = None  # the guard of the registry's write path, where one was opened
        self._lock = lock
        self._thread: threading.Thread | None = None
        self._health = health.aio.HealthServicer()
        self._offered = False
        if config.inputs:
            self.reader = FileReader(agent, config.inputs, config.naming, config.data, rest_s=config.rest_s)

    @staticmethod
    def open(config: SourceConfig) -> Source:
        """Take the data folder and open what is in it.

        Raises:
            ZaibeiError(CONFLICT): another process has the folder. ZaibeiError(DAMAGED): see AgentLog.open, ReceiptBook.open.
        """
        identity = identity_of(config)
        lock = os.open(config.data / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ZaibeiError(Code.CONFLICT, f"another process publishes from {config.data}: stop it first") from None
        nature = config.nature
        if not config.inputs:
            nature = replace(nature, deletes=source_pb2.Description.DELETES_IN_LOG)
        try:
            agent = AgentLog.open(
                config.data / "state", nature, identity.signer, spool=config.spool, marker=config.data / "identity"
            )
        except BaseException:
            os.close(lock)
            raise
        try:
            book = ReceiptBook.open(config.data / RECEIPTS_FOLDER, nature.source)
        except BaseException:
            agent.close()
            os.close(lock)
            raise
        if config.trust is None:  # by a CA, the session checks grants with the key of the certificate it talks to
            agent.trust_granters([peer.signing_key for peer in config.pins.peers])
        return Source(config, identity, agent, book, lock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Source]:
        """Serve, push and read until the block ends; then stop in order."""
        tasks: list[asyncio.Task[None]] = []
        stop_metrics: Callable[[], None] | None = None
        server: grpc.aio.Server | None = None
        try:
            server = await self._serve()
            stop_metrics = self._serve_metrics()
            tasks.append(asyncio.create_task(self._housekeeping()))
            for name in dict.fromkeys(name for name, _ in self.config.push):
                peer = next(peer for peer in self.config.pins.peers if peer.name == name)
                first, *others = [address for member, address in self.config.push if member == name]
                self.pushers.append(
                    Pusher(self.agent, first, self.identity, peer, self.trusts, self.book.met, self._holder, others)
                )
            tasks += [asyncio.create_task(self._push(pusher)) for pusher in self.pushers]
            if self.reader is not None:
                self._thread = threading.Thread(target=self.reader.run, name="input", daemon=True)
                self._thread.start()
            yield self
        finally:
            await self._stop(server, tasks)
            if stop_metrics is not None:
                stop_metrics()
            await ended_in_thread(self.close)  # not twice at once: the number of a closed file is soon another file's

    async def _stop(self, server: grpc.aio.Server | None, tasks: list[asyncio.Task[None]]) -> None:
        if self.reader is not None:
            self.reader.stop()
        await self._health.enter_graceful_shutdown()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if server is not None:
            await server.stop(STOP_GRACE_S)
        if self._thread is not None:
            await ended_in_thread(self._thread.join)

    def close(self) -> None:
        """Close log and folder. Calling twice is harmless."""
        self.book.close()
        self.agent.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _serve(self) -> grpc.aio.Server | None:
        config = self.config
        if not config.listen:
            return None
        if not config.pins.peers and config.trust is None:
            log.warning("no [[member]] is pinned: the feed is not offered yet", extra={"source": config.nature.source})
            return None
        server = grpc.aio.server(options=list(SERVER_OPTIONS))
        add_source_service(server, SourceService(self._log_for, lambda: self.trusts, self._holder))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        bound = []
        for address in config.listen:
            try:
                port = server.add_secure_port(address, server_credentials(self.identity, self.trusts))
            except RuntimeError as exc:
                raise ZaibeiError(
                    Code.CONFLICT, f"cannot listen on {address}: another program does, or it is not ours ({exc})"
                ) from exc
            bound.append(Address(address.rpartition(":")[0], port))
        self.addresses = tuple(bound)
        await server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return server

    @property
    def offered(self) -> bool:
        """True once the registry's files were published as a whole, at any time. Before, a copy would call every name unknown."""
        self._offered = self._offered or self.reader is None or self.reader.published
        return self._offered

    def _log_for(self, peer: Peer, name: str) -> AgentLog | None:
        if name not in ("", self.config.nature.source):
            return None
        if not self.offered and self.reader is not None:
            state, why = self.reader.state.value, self.reader.state_reason
            what = f"{self.config.nature.source} has not read its registry as a whole yet"
            raise ZaibeiError(Code.UNREACHABLE, f"{what} ({state}: {why})" if why else f"{what} ({state})", retry=True)
        self.book.met(peer)
        return self.agent

    def _holder(self) -> LeaseHolder | None:
        return self.holder

    async def _push(self, pusher: Pusher) -> None:
        while not self.offered:  # noqa: ASYNC110 - set by the reader's thread, once in a life
            await asyncio.sleep(OFFER_CHECK_S)
        await pusher.run()

    def _serve_metrics(self) -> Callable[[], None]:
        registry = CollectorRegistry()
        AgentMetrics(registry, self.agent, self.reader)
        servers = []
        for address in self.config.metrics:
            host, _, port = address.rpartition(":")
            try:
                servers.append(start_http_server(int(port), host.strip("[]"), registry)[0])
            except OSError as exc:
                raise ZaibeiError(Code.CONFLICT, f"cannot serve metrics on {address}: {exc.strerror}") from exc

        def stop() -> None:
            for server in servers:
                server.shutdown()
                server.server_close()

        return stop

    async def _housekeeping(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.agent.housekeeping)
                await asyncio.to_thread(self._write_status)
            except ZaibeiError as exc:
                log.warning("housekeeping", extra={"source": self.config.nature.source, "trouble": str(exc)})
            except OSError as exc:
                log.warning("status is not written", extra={"source": self.config.nature.source, "trouble": str(exc)})
            await asyncio.sleep(HOUSEKEEPING_S)

    def status(self) -> dict[str, Any]:
        """What `zaibei source status` shows."""
        agent, reader = self.agent, self.reader
        receipted = agent.receipted
        return {
            "source": self.config.nature.source,
            "pid": os.getpid(),
            "stated_s": boottime_s(),
            "head": str(agent.head()),
            "floor": str(agent.floor()),
            "receipted": str(receipted) if receipted else None,
            "records": agent.content.digest.records,
            "spool_octets": agent.waiting(),
            "spool_full": agent.full(),
            "epoch_wanted": agent.epoch_wanted(),
            "failed": str(agent.failed) if agent.failed else "",
            "receipts": {
                "kept": len(self.book.book.receipts),
                "trouble": str(self.book.trouble or ""),
                "book": str(self.book.path),
            },
            "input": reader.state.value if reader else "none",
            "input_reason": reader.state_reason if reader else "",
            "rejects": reader.counts.rejects if reader else 0,
            "offered": self.offered,
            "listen": [str(address) for address in self.addresses],
            "push": [
                {
                    "member": pusher.replica,
                    "address": pusher.address,
                    "trouble": str(pusher.last_trouble or ""),
                    "connected": pusher.connected,
                }
                for pusher in self.pushers
            ],
        }

    def _write_status(self) -> None:
        path = self.config.data / STATUS_FILE
        with contextlib.suppress(FileNotFoundError):  # the folder was taken away: the log will say so
            beside = path.with_suffix(".new")
            beside.write_text(json.dumps(self.status()))
            beside.replace(path)
