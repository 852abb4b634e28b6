"""A node that feeds a cluster: registers versions of a few names again and again, and clients that resolve them at every member.

A version counts as acknowledged when its quorum receipt has come. Answers are asked of each member by itself, so that monotonic
can be judged per member. Freshness travels in JSON answers only, so that is how they are asked.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from chaos.check.history import Op, Operation
from replica.agent.config import read_config
from replica.client import Publisher, Receipt
from replica.client.guard import Guard
from replica.model.edge_identity import ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.position import Position
from tests.acceptance.world import stable_port
from tests.faults import edge_answering
from tests.faults.workload import History

if TYPE_CHECKING:
    from tests.faults.cluster import Cluster
    from tests.faults.scenario import Load

SOURCE, FED_PREFIX = "node-a", "88.118.1"
RECEIPT_S_MAX = 5.0
LOOK_EVERY_S = 0.02
THREADS_MAX = 16
RPO_S = 1.0  # of the node on a line of its own: its registry waits when more than that is without a receipt
ANSWER_S_MAX = 2.0
NEVER_WRITTEN = -1  # the version of an answer that is no version at all: damaged
ASK_EVERY_S = 0.05
BASE_NAMES = 10_000  # of which all rewrites of a run stay under the share at which the brake holds a feed
BASE_BATCH = 1_000
BULK_BATCH = 20  # many small batches, as a source that was cut off has
DIES_S_MAX = 30.0
FRESH_HEADER = "x-zaibei-freshness"
T = TypeVar("T")
Work = Callable[[asyncio.Event], Coroutine[None, None, None]]


def key_of(place: int, tag: str = "") -> str:
    return f"name-{place}{tag}"


class Feeding:
    """The node, its registry and who asks for its names."""

    name = SOURCE

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.identity = ensure_identity(cluster.folder / SOURCE / "identity", SOURCE)
        self.dead_port = stable_port()  # of the node's own site: nobody ever answers there
        self.started = False
        self._publisher: Publisher | None = None
        self._version = 0
        self.begun = 0  # commits
        self.returned_s: list[float] = []  # when each returned that did
        self._refusals: dict[int, str] = {}  # member -> why it gave no answer last
        # Threads of its own: clients that wait for a member that is cut off must not hold up those who ask another one.
        self._threads = ThreadPoolExecutor(THREADS_MAX, "feeding")
        self._commits = ThreadPoolExecutor(THREADS_MAX, "commits")  # these may be held back
        self._site: asyncio.Server | None = None

    def block(self) -> str:
        """Its part of each member's file."""
        probes = ", ".join(f'{{ protocol = "tcp", address = "{host}", port = {self.dead_port} }}' for host in self.site())
        return (
            f'[[source]]\nname = "{SOURCE}"\nfingerprint = "{self.identity.fingerprint}"\n'
            f"certificate = '''{self.identity.certificate_pem.decode()}'''\nprefixes = [\"{FED_PREFIX}\"]\n"
            f'takeover = "{self._policy()}"\nprobes = [{probes}]\n'
        )

    def _policy(self) -> str:
        """Where its own site never answers, a takeover may only happen where it belongs to the story (zones)."""
        zones = any(seat.zone for seat in self._cluster.seats.values())
        return "automatic" if zones or self._cluster.home is not None else "never"

    def site(self) -> tuple[str, ...]:
        """Where the node answers clients itself, over both families: where it has a namespace of its own, else nowhere."""
        home = self._cluster.home
        return ("127.0.0.1",) if home is None or self._cluster.lab is None else self._cluster.lab.addresses(home)

    def ports(self) -> tuple[int, ...]:
        """All that passes between the node and members."""
        seats = self._cluster.seats.values()
        return (self.dead_port, *(seat.ports[name] for seat in seats for name in ("feed", "beats")))

    def _config(self) -> Any:
        members = [
            {
                "name": seat.name,
                "certificate": (seat.data / "identity" / "certificate.pem").read_text(),
                "push": self._pushed(number),
            }
            for number, seat in self._cluster.seats.items()
        ]
        table = {
            "source": {"name": SOURCE, "prefixes": [FED_PREFIX], "data": SOURCE, "beat_ms": 50, "fence": "write-path"},
            "spool": {"octets_max": 2**28, "keep_octets": 0},
            "pki": {"roots": [str(self._cluster.roots())]},
            "member": members,
        }
        return read_config(table, SOURCE, self._cluster.folder)

    def _pushed(self, number: int) -> str | list[str]:
        """A member's feed: at its first address, or where the node has a line of its own at both families'."""
        port, (first, *others) = self._cluster.seats[number].ports["feed"], self._cluster.hosts(number)
        found = [f"{first}:{port}", *(f"[{host}]:{port}" for host in others)]
        return found if self._cluster.home is not None else found[0]

    async def _run(self, work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*given))

    async def start(self) -> None:
        """The node comes up; returns when the cluster has given it a receipt."""
        await self.come_back()
        publisher = self._publisher
        assert publisher is not None
        receipt = await asyncio.to_thread(self._put_base, publisher)

        async def receipted() -> bool:
            return receipt.done

        await self._cluster.until(f"{SOURCE} gets its first receipt", receipted, DIES_S_MAX)
        self.started = True

    async def _open(self) -> None:
        sites = any(seat.zone for seat in self._cluster.seats.values())  # then its registry is guarded by a lease alone
        rpo_s = RPO_S if self._cluster.home is not None and not sites else None
        self._publisher = await asyncio.to_thread(lambda: Publisher(self._config(), rpo_s=rpo_s))

    @staticmethod
    def _put_base(publisher: Publisher) -> Receipt:
        for place in range(BASE_NAMES):
            publisher.put(f"{FED_PREFIX}/BASE-{place}", {"URL": f"https://example.cn/base/{place}"})
            if place % BASE_BATCH == BASE_BATCH - 1:
                receipt = publisher.commit()
        return receipt

    def head(self) -> Position:
        """All that is on the node's disk ends here."""
        assert self._publisher is not None
        return self._publisher.head

    def guard(self) -> Guard:
        """Of its write path; blocks. Closed by whoever asked for it."""
        assert self._publisher is not None
        return self._publisher.guard()

    async def register(self, name: str) -> None:
        """One registration, on the node's disk when this returns."""
        publisher = self._publisher
        assert publisher is not None
        publisher.put(f"{FED_PREFIX}/{name}", {"URL": f"https://example.cn/{name}"})
        await self._run(publisher.commit)

    async def publish(self, names: int, octets: int, chance: Random) -> None:
        """So many new names at once, with values that cannot be compressed."""
        publisher = self._publisher
        assert publisher is not None

        def work() -> None:
            for place in range(names):
                text = chance.randbytes(octets // 2).hex()
                publisher.put(f"{FED_PREFIX}/BULK-{chance.getrandbits(64):x}", {"URL": f"https://example.cn/{text}"})
                if place % BULK_BATCH == BULK_BATCH - 1:
                    publisher.commit()

        await self._run(work)

    async def die(self) -> None:
        """The node is gone; returns when a member says that it answers for it. Raises TimeoutError: nobody does."""
        await self.stop()

        async def taken_over() -> bool:
            try:
                found = await self._cluster.somewhere(lambda client: client.sources())
            except ZaibeiError:
                return False
            return any(one.source == SOURCE and one.authority != "SOURCE" for one in found)

        await self._cluster.until(f"{SOURCE} is taken over", taken_over, DIES_S_MAX)

    async def come_back(self) -> None:
        if self._cluster.home is not None:
            self._site = await edge_answering.serve(self.site(), self.dead_port, FED_PREFIX)
        await self._open()

    async def stop(self) -> None:
        if self._site is not None:
            self._site.close()
        if self._publisher is not None:
            await asyncio.to_thread(self._publisher.close)
            self._publisher = None

    # ------------------------------------------------------------------------------------------------------------------ load

    def writing(self, load: Load, history: History) -> Work:
        """One name after the other gets its next version; unknown until its receipt came."""

        async def work(stop: asyncio.Event) -> None:
            waiting: set[asyncio.Task[None]] = set()
            while not stop.is_set():
                await asyncio.sleep(load.feed_every_s)
                publisher = self._publisher
                if publisher is None:
                    continue
                self._version += 1
                key = key_of(self._version % load.names, load.tag)
                task = asyncio.create_task(self._write(publisher, key, self._version, history))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            if waiting:  # a commit that is held back ends with the publisher, and was never acknowledged
                done, held = await asyncio.wait(waiting, timeout=2 * RECEIPT_S_MAX)
                for task in held:
                    task.cancel()
                await asyncio.gather(*held, return_exceptions=True)
                for task in done:
                    task.result()

        return work

    async def _write(self, publisher: Publisher, key: str, version: int, history: History) -> None:
        began_ns, done = time.monotonic_ns(), False
        self.begun += 1
        try:
            publisher.put(f"{FED_PREFIX}/{key.upper()}", {"URL": f"https://example.cn/{version}"})
            receipt = await asyncio.get_running_loop().run_in_executor(self._commits, publisher.commit)
            self.returned_s.append(time.monotonic())
            for _ in range(int(RECEIPT_S_MAX / LOOK_EVERY_S)):
                if done := receipt.done:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
        except (ZaibeiError, RuntimeError):
            done = False  # the node died meanwhile
        finally:
            one = Operation(
                SOURCE, key, Op.PUT, version, None, None, False, True if done else None, began_ns, time.monotonic_ns()
            )
            history.operations.append(one)

    def resolving(self, member: int, load: Load, history: History, seed: int) -> Work:
        """A client that asks one member for one name after the other."""
        chance = Random(f"{seed} resolve {member}")

        async def work(stop: asyncio.Event) -> None:
            while not stop.is_set():
                await asyncio.sleep(ASK_EVERY_S)
                key = key_of(chance.randrange(load.names), load.tag)
                began_ns = time.monotonic_ns()
                version, fresh = await self._run(self._ask, member, key)
                one = Operation(
                    f"r{member}", key, Op.RESOLVE, None, None, version, True, True if version else None,
                    began_ns, time.monotonic_ns(), f"m{member}", fresh,
                )  # fmt: skip
                history.operations.append(one)

        return work

    def resolving_anywhere(self, history: History, seed: int) -> Work:
        """A client as programs are: it knows all members and goes on to the next one. Names of the base."""
        chance = Random(f"{seed} resolve anywhere")

        async def work(stop: asyncio.Event) -> None:
            while not stop.is_set():
                await asyncio.sleep(ASK_EVERY_S)
                members = list(self._cluster.seats)
                chance.shuffle(members)
                key = f"base-{chance.randrange(BASE_NAMES)}"
                history.asked += 1
                for member in members:
                    if (await self._run(self._ask, member, key))[0] is not None:
                        break
                else:
                    history.unanswered.append(f"{key}: " + ", ".join(f"m{one} {self._refusals.get(one, '?')}" for one in members))

        return work

    def url(self, member: int, host: str, name: str) -> str:
        """Where a member answers for a name, at one of its addresses."""
        at = f"[{host}]" if ":" in host else host
        return f"http://{at}:{self._cluster.seats[member].ports['http']}/api/handles/{name}"

    def _ask(self, member: int, key: str) -> tuple[int | None, bool]:
        """(version, called fresh); None: no final answer."""
        if member not in self._cluster.seats:
            return None, False
        url = self.url(member, self._cluster.hosts(member)[0], f"{FED_PREFIX}/{key.upper()}")
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_S_MAX) as answer:
                document = json.loads(answer.read())
                fresh = str(answer.headers.get(FRESH_HEADER, "")).startswith("fresh")
        except (urllib.error.URLError, OSError, ValueError) as exc:
            self._refusals[member] = str(exc)
            return None, False
        urls = [value["data"]["value"] for value in document.get("values", ()) if value.get("type") == "URL"]
        if not urls:
            return None, False
        number = str(urls[0]).rpartition("/")[2]
        return (int(number) if number.isdecimal() else NEVER_WRITTEN), fresh

    def folder(self) -> Path:
        return self._cluster.folder / SOURCE
