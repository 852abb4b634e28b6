"""A real cluster as a system of the runner: `zaibei up` processes that came as by `zaibei cluster init`, `invite` and `join`.

Each member tells others the address of its door (`[cluster] reach`), so that every link goes through the mesh. All members have
the same two
sources: one that is hosted (registrations) and one that is fed by a node (feeding.py).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from chaos.faults.edge_image import wipe
from chaos.rigs.capability import Capability
from hosting.tenant.edge_client import RegistrationClient
from ops.admin.cluster_values import ClusterStatus, MemberRow
from ops.admin.edge_client import AdminClient
from ops.admin.values import SourceStatus
from ops.cli.exits import Exit
from ops.cluster.edge_begin import begin_cluster, join_cluster
from replica.enrol.token import decode_token
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from tests.acceptance.world import stable_port
from tests.faults.clients import HOSTED, PREFIX, ClusterRegister, registrar_line
from tests.faults.feeding import Feeding
from tests.faults.reading import damaged, read_copy
from tests.faults.scenario import Load
from tests.faults.system import PYTHON, Register, Seat, System
from tests.faults.workload import History

READY_S_MAX = 60.0
MEMORY_MB = 64
LAG_ENTRIES_MAX = 1_000  # fewer than this behind, under load: it takes part
LISTENS = ("handle", "http", "grpc", "feed", "beats", "registration", "metrics")
ZAIBEI = [PYTHON, "-m", "ops.cli.main"]
INVITE_S = 900
STAYS_S, LOOKED_S = 8.0, 2.0
HEALS_ITSELF = ("entries are lost", "votes are lost", "an older disk")  # who forgot is fed anew without anybody's help
T = TypeVar("T")


def _text(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _row_of(found: ClusterStatus | None, name: str) -> MemberRow | None:
    """The newest member of a name: one that was removed keeps its row, and its number is given to nobody."""
    rows = [one for one in found.members if one.name == name] if found else []
    return max(rows, key=lambda one: one.number) if rows else None


class Cluster(System):
    """Members named m1, m2, …"""

    capabilities = frozenset({Capability.FEED, Capability.MEMBERSHIP, Capability.AMNESIA, Capability.LEADER})
    patterns: Mapping[str, str] = {"wal": "journal/db/*.log", "table": "gen-*/*.sst", "manifest": "journal/db/MANIFEST-*"}
    port_names = (*LISTENS, "enrol")
    keeper = 1
    planted = ""  # a bug of planted.py that all members have

    async def start(self) -> None:
        await self.open_links()
        if self.lab is not None:
            self.lab.log = self.log
        self.registrar = ensure_identity(self.folder / "registrar", "tenant-9")
        self.feeding = Feeding(self)
        self._troubled: dict[tuple[str, str], tuple[float, float]] = {}  # (member, group): out of service when first, when last
        for seat in self.seats.values():
            self._configure(seat)
        first = self.seats[1]
        begun = await asyncio.to_thread(begin_cluster, first.data, "m1", self._links(first), None)
        enrol = json.dumps([_text((host, first.ports["enrol"])) for host in self.hosts(1)])
        self._append(first, f'[pki]\nfolder = "{begun.pki}"\nenrol = {enrol}\n')
        self.launch(1)
        await self.until("the first member answers", lambda: self._answers(1), READY_S_MAX)
        for number in sorted(self.seats)[1:]:  # in turn, so that each gets its seat's number
            await self._joined(number)
        for number in self.seats:
            await self.up(number, READY_S_MAX)
        await self.feeding.start()

    # ------------------------------------------------------------------------------------------------------------------ files

    def _configure(self, seat: Seat) -> None:
        """The member's file; `cluster init` and `join` add what they know to it."""
        at = self.hosts(seat.number)

        def listed(addresses: Sequence[tuple[str, int]]) -> str:
            return json.dumps([_text(address) for address in addresses])

        listen = "".join(f"{name} = {listed([(host, seat.ports[name]) for host in at])}\n" for name in LISTENS)
        text = (
            f'[member]\nname = "{seat.name}"\ndata = "{seat.data}"\nmachine = "machine-{seat.number}"\nlog = "json"\n'
            f"[listen]\nallow_public = {'true' if self.lab else 'false'}\n{listen}"
            f"[limits]\ndisk_reserve_mb = 16\nmemory_mb = {MEMORY_MB}\n"
            f"[cluster]\nlisten = {listed([(host, seat.ports['link']) for host in at])}\n"
            f'reach = {listed(self.reach(seat.number))}\nzone = "{seat.zone}"\nreplicas = {3 if len(self.seats) < 5 else 5}\n'
            f'[[source]]\nname = "{HOSTED}"\nhosted = true\nprefixes = ["{PREFIX}"]\n{registrar_line(self.registrar)}'
            f"{self.feeding.block()}"
        )
        self.toml(seat).write_text(text)

    def toml(self, seat: Seat) -> Path:
        return self.folder / f"m{seat.number}.toml"

    def roots(self) -> Path:
        """The certificate of the cluster's CA, at the first member."""
        return self.seats[1].data / "pki" / "ca.pem"

    # --------------------------------------------------------------------------------------------------------------- commands

    def command(self, seat: Seat) -> list[str]:
        bends = "bends" if self.home is not None else ""  # does nothing until it is switched on
        bug = ",".join(one for one in (self.planted, bends) if one)
        program = [PYTHON, "-m", "tests.faults.planted", bug] if bug else ZAIBEI
        return [*program, "up", "--config", str(self.toml(seat)), "--json"]

    def _links(self, seat: Seat) -> tuple[str, ...]:
        return tuple(_text(address) for address in self.reach(seat.number))

    def _append(self, seat: Seat, text: str) -> None:
        with self.toml(seat).open("a") as file:
            file.write(text)

    async def _joined(self, number: int) -> None:
        """What `zaibei cluster invite` and `join` do, without a process for each."""
        seat = self.seats[number]
        invited = await self.somewhere(lambda client: client.cluster_invite(seat.name, seat.zone, INVITE_S))
        await self._comes(seat, invited.token)

    async def _comes(self, seat: Seat, invite: str) -> None:
        token, number = decode_token(invite), seat.number
        feeds = tuple(_text((host, seat.ports["feed"])) for host in self.hosts(number))
        await join_cluster(seat.data, token, seat.zone, self._links(seat), feeds)
        roots = json.dumps([str(seat.data / "pki" / "ca.pem")])
        self._append(seat, f"[pki]\nroots = {roots}\nreach = {json.dumps(list(token.addresses))}\n")
        self.launch(number)

    async def somewhere(self, act: Callable[[AdminClient], T]) -> T:
        """An operator's act, at the first member that runs and does it. Raises ZaibeiError: none would."""

        def at(number: int) -> T:
            with AdminClient(self.seats[number].data / "admin.sock") as client:
                return act(client)

        failed: Exception | None = None
        for number in self.pids():
            try:
                return await asyncio.to_thread(at, number)
            except (ZaibeiError, OSError) as exc:
                failed = exc
        raise ZaibeiError(Code.REFUSED, f"no member would: {failed}")

    # ---------------------------------------------------------------------------------------------------------------- looking

    async def _status(self, number: int) -> ClusterStatus | None:
        """What a member says of the cluster; None while it does not answer."""

        def look() -> ClusterStatus | None:
            try:
                with AdminClient(self.seats[number].data / "admin.sock") as client:
                    return client.cluster_status()
            except (ZaibeiError, OSError):
                return None

        return await asyncio.to_thread(look)

    async def _answers(self, number: int) -> bool:
        return await self._status(number) is not None

    async def _row(self, number: int) -> tuple[ClusterStatus, MemberRow] | None:
        found = await self._status(number)
        row = _row_of(found, self.seats[number].name)
        return (found, row) if found is not None and row is not None else None

    async def ready(self, seat: Seat) -> bool:
        """Active, every group has a leader and a majority, and where it has a voice it is not out of service and not far behind.
        Where there are as many voters as members it has a voice in all."""
        told = await self._row(seat.number)
        if told is None:
            return False
        found, row = told
        sources = {HOSTED, *([self.feeding.name] if self.feeding.started else [])}
        groups = {group.group: group for group in found.groups}
        if row.state != "active" or not sources <= set(groups) or any(not groups[name].leader for name in sources):
            return False
        if len(self.seats) in (3, 5) and any(row.name not in groups[name].voters for name in sources):
            return False
        mine = [group for group in groups.values() if row.name in (*group.voters, *group.learners)]
        return all(
            group.quorum is not False and row.name not in set(group.wanted) - set(group.voters)
            and row.name not in group.out_of_service
            and (group.behind.get(row.name) or 0) <= LAG_ENTRIES_MAX
            for group in mine
        )  # fmt: skip

    async def leader(self) -> int:
        found = 0

        async def look() -> bool:
            nonlocal found
            votes: dict[str, int] = {}
            for number in self.pids():
                status = await self._status(number)
                for group in status.groups if status else ():
                    if group.group == HOSTED and group.leader:
                        votes[group.leader] = votes.get(group.leader, 0) + 1
            if votes:
                name = max(votes, key=lambda one: votes[one])
                found = next((number for number, seat in self.seats.items() if seat.name == name), 0)
            return found in self.pids()

        await self.until(f"{HOSTED} has a leader", look, READY_S_MAX)
        return found

    async def amnesiac(self, member: int) -> bool | None:
        """Its own status or log says so, or a group made it a learner."""
        told = await self._row(member)
        said = self.said_by(member).lower()
        if "amnesi" in said or (told is not None and "amnesi" in f"{told[1].trouble} {told[0].warnings}".lower()):
            return True
        if told is None:
            return None
        return any(told[1].name in group.learners for group in told[0].groups)

    async def source_at(self, member: int) -> SourceStatus | None:
        def look() -> SourceStatus | None:
            try:
                with AdminClient(self.seats[member].data / "admin.sock") as client:
                    return next((one for one in client.sources() if one.source == self.feeding.name), None)
            except (ZaibeiError, OSError):
                return None

        return await asyncio.to_thread(look)

    async def behind(self, member: int, source: str) -> int | None:
        """Entries of a source's group that a member lacks, as any other one says; None: nobody knows."""
        for number in self.pids():
            if number == member or (status := await self._status(number)) is None:
                continue
            for group in status.groups:
                if group.group == source and (lacks := group.behind.get(self.seats[member].name)) is not None:
                    return lacks
        return None

    async def led_and_lacked(self, leader: int, member: int) -> tuple[set[str], dict[str, int]]:
        """Groups that a member leads, and how many entries another one lacks of each, both as the first says."""
        status, name = await self._status(leader), self.seats[member].name
        groups = status.groups if status else []
        led = {group.group for group in groups if group.leader == self.seats[leader].name}
        return led, {group.group: lacks for group in groups if (lacks := group.behind.get(name)) is not None}

    async def transfer(self, group: str, member: int) -> None:
        """Let a member lead a group, now and from now on. Raises ZaibeiError."""
        await self.somewhere(lambda client: client.cluster_transfer(group, self.seats[member].name))

    def register(self, client: str) -> Register:
        """Clients know all members; each begins with another one."""
        numbers = sorted(self.seats)
        place = sum(map(ord, client)) % len(numbers)
        order = numbers[place:] + numbers[:place]
        addresses = [f"{self.hosts(number)[0]}:{self.seats[number].ports['registration']}" for number in order]
        return ClusterRegister(RegistrationClient(addresses, self.registrar, [self.roots().read_bytes()], patience_s=3.0))

    def other_load(
        self, load: Load, history: History, seed: int
    ) -> Sequence[Callable[[asyncio.Event], Coroutine[None, None, None]]]:
        if not load.names:
            return ()
        resolvers = [self.feeding.resolving(number, load, history, seed) for number in self.seats]
        return [self.feeding.writing(load, history), self.feeding.resolving_anywhere(history, seed), *resolvers]

    # ---------------------------------------------------------------------------------------------------------------- changing

    async def repair(self, member: int) -> bool:
        """As `zaibei up` tells an operator when it refuses a damaged journal: the member is lost, a new one takes its place."""
        seat = self.seats[member]
        if seat.process is None or seat.process.poll() != Exit.VERIFICATION_FAILED:
            return False
        lost = seat.name
        seat.life += 1

        def replace(client: AdminClient) -> str:
            plan = client.cluster_plan("replace", lost)
            return client.cluster_run("replace", lost, token=plan.token, name=seat.name, zone=seat.zone).invite

        invite = await self.somewhere(replace)
        wipe(seat.data)
        self._configure(seat)
        await self._comes(seat, invite)
        if self.feeding.started:  # its file names members: where one was replaced, the new one is written there
            await self.feeding.stop()
            await self.feeding.come_back()
        return True

    async def read_through(self, member: int) -> dict[str, str]:
        seat, found = self.seats[member], dict[str, str]()
        for source in (HOSTED, *([self.feeding.name] if self.feeding.started else [])):
            found[source] = await asyncio.to_thread(read_copy, seat, source)
            if damaged(found[source]):
                await self._reseed(seat.name, source)
        return found

    async def _reseed(self, member: str, group: str) -> None:
        def reseed(client: AdminClient) -> None:
            plan = client.cluster_plan("reseed", member, group)
            client.cluster_run("reseed", member, group, token=plan.token)

        await self.somewhere(reseed)

    async def mend(self, member: int) -> str:
        """A copy that stays out of service is fed anew, as the status says; what forgot is healed by itself."""
        told = await self._row(member)
        if told is None:
            return ""
        found, row = told
        for group in found.groups:
            why = group.out_of_service.get(row.name, "")
            place = (row.name, group.group)
            now_s = time.monotonic()
            first_s, last_s = self._troubled.pop(place, (now_s, now_s))
            if not why or any(words in why for words in HEALS_ITSELF):
                continue
            first_s = first_s if now_s - last_s < LOOKED_S else now_s  # otherwise it is another trouble of that copy
            self._troubled[place] = (first_s, now_s)
            if now_s - first_s > STAYS_S:
                del self._troubled[place]
                await self._reseed(row.name, group.group)
                return f"{group.group}: {why[:80]}"
        return ""

    async def grow(self) -> Awaitable[None]:
        number = max(self.seats) + 1
        data = self.folder / f"m{number}"
        data.mkdir(exist_ok=True)
        seat = Seat(number, data.resolve(), "", {name: stable_port() for name in (*self.port_names, "link", "reach")})
        self.seats[number] = seat
        await self.open_door(number)
        self._configure(seat)

        async def joining() -> None:
            await self._joined(number)
            await self.up(number, READY_S_MAX)

        return asyncio.create_task(joining())

    async def shrink(self, member: int) -> Awaitable[None]:
        """`zaibei cluster remove`, as a plan and its run."""

        async def leaving() -> None:
            name = self.seats[member].name

            def remove(client: AdminClient) -> None:
                plan = client.cluster_plan("remove", name)
                client.cluster_run("remove", name, token=plan.token)

            await self.somewhere(remove)

            async def gone() -> bool:
                others = [number for number in self.pids() if number != member]
                rows = [row for number in others if (row := _row_of(await self._status(number), name))]
                return bool(rows) and all(row.state == "removed" for row in rows)

            await self.until(f"{name} is removed", gone, READY_S_MAX)
            await self.stop_member(member)
            wipe(self.seats.pop(member).data)
            await self.close_door(member)

        return asyncio.create_task(leaving())

    async def source_dies(self) -> None:
        await self.feeding.die()

    async def source_returns(self) -> None:
        await self.feeding.come_back()

    async def close(self) -> None:
        if hasattr(self, "feeding"):
            await self.feeding.stop()
        await super().close()
