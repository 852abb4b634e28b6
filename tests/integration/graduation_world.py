"""A region that lives at a member, its clients, and the node it leaves for, in this process; for tests of graduation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hosting.answer.standing import FOUND, row_of, standing_text
from hosting.tenant.edge_client import RegistrationClient
from hosting.tenant.edge_port import RegistrationPort
from ops.registering import registration_port
from replica.client.edge_follow import Follower, Way
from replica.member.copy import SourceCopy
from replica.member.settings import SourceSettings
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code
from replica.model.identity import Peer
from tests.integration.member_world import Node, World, key, running, settings_of
from tests.integration.tenant_world import hosted_source, url

NAME, PREFIX = "region-9", "88.118.9"
PAUSE_S = 0.005
GIVEN_BACK = "it registers itself"


@dataclass
class Clients:
    """Registers one identifier after the other and looks each up again, all the while."""

    client: RegistrationClient
    copy: SourceCopy
    registered: dict[bytes, bytes] = field(default_factory=dict)  # acknowledged: key -> record
    waited: int = 0  # refused for the moment, and longer than the client repeats it
    sent_on: int = 0  # refused because the node registers by now
    lookups: int = 0
    failed: list[str] = field(default_factory=list)

    async def run(self) -> None:
        number = 0
        while True:
            await self._register(f"{PREFIX}/made-{number}", f"https://{number}.cn/")
            self._look_up()
            number += 1
            await asyncio.sleep(PAUSE_S)

    async def _register(self, name: str, text: str) -> None:
        done = await self.client.put(name, url(text))
        if done.ok:
            [value], _ = self.copy.store.get_many([key(name)])
            assert value is not None, f"{name} was acknowledged and is not there"
            self.registered[key(name)] = value
            return
        trouble = done.trouble
        assert done.ok is False and trouble is not None, f"what became of {name} is not known: {done}"
        if trouble.code is Code.BUSY:  # longer than a client waits
            self.waited += 1
        else:
            assert (trouble.code, GIVEN_BACK in trouble.message) == (Code.REFUSED, True), trouble
            self.sent_on += 1

    def _look_up(self) -> None:
        """The newest and the oldest of what was acknowledged must be found, at every moment."""
        names = list(self.registered)[-1:] + list(self.registered)[:1]
        if not names:
            return
        values, view = self.copy.answers.read(names)
        self.lookups += len(names)
        answered = row_of(view).found == FOUND
        if not answered or any(value != self.registered[name] for name, value in zip(names, values, strict=True)):
            self.failed.append(standing_text(view))


@dataclass
class Leaving:
    """A running member, the region that lives at it, and the node it leaves for."""

    world: World
    node: Node
    port: RegistrationPort
    identity: Identity
    registrar: Identity

    @property
    def copy(self) -> SourceCopy:
        return self.world.copy(NAME)

    def client(self) -> RegistrationClient:
        addresses = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.port.addresses]
        return RegistrationClient(addresses, self.registrar, [self.identity.certificate_pem])

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[Clients]:
        """At work while the block runs; an error of theirs is raised at its end."""
        async with self.client() as client:
            clients = Clients(client, self.copy)
            work = asyncio.create_task(clients.run())
            try:
                yield clients
            finally:
                work.cancel()
                [ended] = await asyncio.gather(work, return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError):
                raise AssertionError(f"the clients ended: {ended!r}")

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Follower]:
        """The node copies ours."""
        host, port = self.world.member.feed_addresses[0]
        way = Way(Peer(self.identity.name, self.identity.certificate_pem, role="member"), f"{host}:{port}")
        follower = Follower(self.node.log, self.node.identity, [way], None)
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def order(self, wish: str = "return") -> None:
        calls = self.world.calls()
        plan = await calls.failback_plan(NAME, wish, "hold-for-person", {})
        assert plan["refusal"] == "", plan["refusal"]
        await calls.failback_run(NAME, wish, "hold-for-person", {}, str(plan["token"]), "it has a node of its own")


@asynccontextmanager
async def leaving(folder: Path) -> AsyncIterator[Leaving]:
    """The node serves its empty log; nothing was ordered."""
    identity = ensure_identity(folder / "member", "member-1")
    registrar = ensure_identity(folder / "tenant", "tenant-9")
    node = Node(folder, NAME, PREFIX, identity)
    async with node.serving():
        source = SourceSettings(node.pin, (PREFIX,), pull=node.addresses, operable=False, hosted=NAME)
        async with running(settings_of(folder, identity, [source])) as world:
            port = registration_port([hosted_source(NAME, PREFIX, [registrar])], world.member, identity)
            await port.start((("127.0.0.1", 0), ("::1", 0)))
            try:
                yield Leaving(world, node, port, identity, registrar)
            finally:
                await port.stop()
