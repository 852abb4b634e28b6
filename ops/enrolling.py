"""Enrolment at a running member: the service where the CA is, and sources that come in while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ops.config import Address, MemberConfig, load_config
from ops.config.edge_load import EMBEDDED, enrolled_folder
from ops.config.values import Source
from ops.pki.edge_own import ca_of, has_ca, is_of_ca, place_of, trust_files
from replica.enrol.edge_server import EnrolServer, EnrolService
from replica.enrol.port import Admission, Centre
from replica.enrol.tickets import Ticket
from replica.model.edge_identity import Identity
from replica.model.edge_trust import LiveTrust
from replica.model.errors import ZaibeiError
from replica.model.identity import Pins
from replica.model.trust import Role

LOOK_S = 1.0  # how often the folder of enrolled sources is looked at

log = logging.getLogger("zaibei.enrol")
TakeIn = Callable[[Source], Awaitable[None]]


class Enrolment:
    """Args:
    origin: where the configuration was read from; it is read again when a source came in.
    take_in: lets a source into the running member; one that is in already stays. Raises ZaibeiError.
    centres: the members that copy sources and where each is pushed to, by now.
    admission: takes members into the cluster; None: there is none.
    """

    def __init__(
        self,
        config: MemberConfig,
        origin: str,
        identity: Identity,
        take_in: TakeIn,
        centres: Callable[[], Sequence[Centre]],
        admission: Admission | None = None,
    ) -> None:
        self._centres = centres
        self._config, self._origin, self._identity = config, origin, identity
        self._take_in, self._admission = take_in, admission
        self._sources = config.sources
        self._server: EnrolServer | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._mark: tuple[tuple[str, int], ...] = self._look()
        self._reading = asyncio.Lock()
        self._told = ""  # why nothing could be taken in, as it was logged last

    async def start(self) -> list[Address]:
        """Where it listens; nowhere when the CA is at another member, or our own certificate is not of the CA."""
        config = self._config
        self._watcher = asyncio.create_task(self._watch(), name="look for enrolled sources")
        files = trust_files(config)
        if files is None or not has_ca(config.pki) or not config.pki.enrol:
            return []
        ca = ca_of(config.pki)
        if not is_of_ca(self._identity, ca.roots_pem(), time.time()):
            log.warning("no enrolment: this member's own certificate is not of the CA. Next: zaibei pki renew, then restart")
            return []
        await asyncio.to_thread(ca.key)  # a wrong passphrase is told at the start, not at the first enrolment
        trusts = LiveTrust(lambda: Pins(tuple(one.peer for one in self._sources if one.peer is not None)), files, frozenset(Role))
        service = EnrolService(ca, ca, self._centres, trusts, self, self._admission, place_of(config)[1])
        self._server = EnrolServer(service, self._identity)
        await self._server.start([(address.host, address.port) for address in config.pki.enrol])
        return [Address(*address) for address in self._server.addresses]

    async def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self._server is not None:
            await self._server.stop()

    # -- replica.enrol.port.Welcome

    async def source(self, ticket: Ticket) -> None:
        """Write its block, and let it in."""
        await asyncio.to_thread(write_block, enrolled_folder(self._config.member.data), ticket)
        await self._read_again()

    # -- blocks that were written by us, or by a person who copied one from another member

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            mark = self._look()
            if mark != self._mark:
                try:
                    await self._read_again()
                except ZaibeiError as exc:  # tried again until the fault is gone, and told once
                    if str(exc) != self._told:
                        log.error("an enrolled source is not taken in yet", extra={"fields": {"why": str(exc)}})
                    self._told = str(exc)
                    continue
                self._mark, self._told = mark, ""

    def _look(self) -> tuple[tuple[str, int], ...]:
        found = list[tuple[str, int]]()
        for file in enrolled_folder(self._config.member.data).glob("*.toml"):
            with contextlib.suppress(OSError):  # a person's editor moves it this very moment: there, or not, at the next look
                found.append((file.name, file.stat().st_mtime_ns))
        return tuple(sorted(found))

    async def _read_again(self) -> None:
        """Raises ZaibeiError: the configuration is faulty by now, or a source cannot come in beside those that run."""
        async with self._reading:
            path = None if self._origin == EMBEDDED else Path(self._origin)
            found = await asyncio.to_thread(load_config, path, data=self._config.member.data)
            running = {one.name for one in self._sources}
            for source in found.config.sources:
                if source.name not in running:
                    self._sources = (*self._sources, source)
                    await self._take_in(source)
                    log.warning("a further source is copied", extra={"fields": {"source": source.name}})


def write_block(folder: Path, ticket: Ticket) -> Path:
    """The [[source]] block of an enrolled source into a file of its own. A block that is there already stays."""
    path = folder / f"{ticket.name}.toml"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [
        f"# Enrolled by token {ticket.ident.hex()}. Every member of a cluster needs this file.",
        "[[source]]",
        f"name = {json.dumps(ticket.name)}",
        f"prefixes = {json.dumps(list(ticket.prefixes))}",
    ]
    lines += [f"pull = {json.dumps(list(ticket.pull))}"] if ticket.pull else []
    beside = path.with_suffix(".new")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(path)
    return path
