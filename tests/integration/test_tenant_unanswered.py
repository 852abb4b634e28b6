"""A suspended tenant is resolved as before, or, where its document says so, by nobody: every way in, every member, until resumed.

And its quotas of octets and resolutions, on a real member: what is counted is told, and what does not fit is refused.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from hosting.answer.question import Question
from hosting.front.batcher import Batcher
from hosting.tenant.edge_clerk import Clerk
from hosting.tenant.edge_views import TenantViews
from hosting.tenant.papers import Tenant, key_of, value_of
from hosting.v1 import resolve_pb2, resolve_pb2_grpc
from ops.demo.stage import free_port
from ops.up import MemberPort
from replica.member.settings import SourceSettings
from replica.model.batch import OP_PUT, Change
from replica.model.precondition import NOTHING
from tests.integration.cluster_world import cluster
from tests.integration.member_world import put, until
from tests.integration.test_block_cli import Inbox, now_ms
from tests.integration.test_register_cli import FILE, Up, run
from tests.unit.front.world import ask_http, ask_tcp, ask_udp, code_of, resolution

NAME = "88.118.9/a"
ANSWERED, UNANSWERED = (1, 1, 200, 1), (401, 401, 403, 401)
ELSEWHERE = (2, 2, 500, 2)
WHY = ["--why", "unpaid", "--by", "li.wei"]


class Stage:
    """`zaibei up` with one tenant, and every way to ask it."""

    def __init__(self, folder: Path, fronts: int) -> None:
        self.folder, self.places = folder, {kind: ("127.0.0.1", free_port()) for kind in ("handle", "http", "grpc")}
        _, mine = run("register", "identity", "--name", "tenant-9", "--identity", str(folder / "registrar"))
        file = FILE.format(registrars=mine["block"]).replace("[listen]", f"[listen]\nfronts = {fronts}")
        file = file.replace('handle = ["127.0.0.1:0"]', f'handle = ["127.0.0.1:{self.places["handle"][1]}"]')
        for kind in ("http", "grpc"):
            file = file.replace(f"{kind} = []", f'{kind} = ["127.0.0.1:{self.places[kind][1]}"]')
        (folder / "zaibei.toml").write_text(file)
        self.config = ["--config", str(folder / "zaibei.toml")]
        assert run("identity", "create", *self.config)[0] == 0
        self.up, self.fingerprint = Up(folder), mine["fingerprint"]

    def again(self) -> None:
        self.up.stop()
        self.up = Up(self.folder)

    def end(self) -> None:
        """Front processes outlive a member that is killed, so it is stopped while it can be."""
        if self.up.process.poll() is None:
            self.up.process.terminate()
            self.up.process.wait(60)
        self.up.kill()

    def tenant(self, *words: str) -> Any:
        code, told = run("tenant", *words, *self.config)
        assert code == 0, told
        return told

    def suspend(self, *options: str) -> None:
        token = self.tenant("suspend", "region-9", *options, *WHY)["plan"]["token"]
        self.tenant("suspend", "region-9", *options, *WHY, "--plan", token)

    def put(self, name: str, text: str) -> tuple[int, Any]:
        where = ["--server", self.up.addresses[0], "--identity", str(self.folder / "registrar")]
        member = ["--member-file", str(self.folder / "zaibei-data" / "identity" / "certificate.pem")]
        return run("register", "put", name, "--value", f"URL={text}", *where, *member)

    async def _codes(self) -> tuple[int, int, int, int]:
        (over_udp,) = await ask_udp(self.places["handle"], resolution(NAME.encode()))
        (over_tcp,) = await ask_tcp(self.places["handle"], resolution(NAME.encode()))
        async with grpc.aio.insecure_channel("{}:{}".format(*self.places["grpc"])) as channel:
            stub: resolve_pb2_grpc.ResolverAsyncStub = resolve_pb2_grpc.ResolverStub(channel)  # type: ignore[assignment]
            told = await stub.BatchResolve(resolve_pb2.BatchResolveRequest(identifiers=[NAME.encode()]))
        over_http = (await ask_http(self.places["http"], f"/api/handles/{NAME}"))[0]
        return code_of(over_udp), code_of(over_tcp), over_http, int.from_bytes(told.response_codes, "big")

    def reach(self, wanted: tuple[int, int, int, int]) -> float:
        """Seconds until every way answers so."""

        async def look() -> None:
            found = None
            async with asyncio.timeout(60):
                while found != wanted:
                    try:
                        found = await self._codes()
                    except (TimeoutError, OSError):  # a busy machine stood still
                        continue
                    await asyncio.sleep(0.1)

        begun = time.monotonic()
        asyncio.run(look())
        return time.monotonic() - begun


@pytest.mark.parametrize("fronts", [0, 1])
def test_every_way_in_is_closed_until_it_is_resumed(fronts: int, tmp_path: Path) -> None:
    stage = Stage(tmp_path, fronts)
    try:
        assert stage.put(NAME, "x")[0] == 0
        stage.tenant("create", "region-9", "--title", "Region 9", *WHY)
        stage.reach(ANSWERED)
        before = stage.tenant("show", "region-9")["tenant"]
        stage.suspend()
        assert stage.put(NAME, "y")[0] == 4
        time.sleep(3)
        stage.reach(ANSWERED)  # as before, by default

        stage.suspend("--unanswered")
        assert stage.reach(UNANSWERED) < 30
        assert stage.put(NAME, "y")[0] == 4
        told = stage.tenant("show", "region-9")["tenant"]
        assert told["answered"] is False
        assert (told["identifiers"], told["octets"]) == (before["identifiers"], before["octets"]), "nothing of it is touched"
        stage.again()
        stage.reach(UNANSWERED)  # a restart forgets nothing

        stage.tenant("resume", "region-9", *WHY)
        assert stage.reach(ANSWERED) < 30
        stage.suspend()
        time.sleep(3)
        stage.reach(ANSWERED)  # whether it is answered is said anew with each suspension
    finally:
        stage.end()


@pytest.mark.parametrize("fronts", [0, 1])
def test_a_quota_of_resolutions_holds_on_every_way(fronts: int, tmp_path: Path) -> None:
    stage = Stage(tmp_path, fronts)
    try:
        assert stage.put(NAME, "x")[0] == 0
        stage.tenant("create", "region-9", "--title", "Region 9", *WHY)
        stage.reach(ANSWERED)
        stage.tenant("set", "region-9", "quota", "tenant", "--json-body", '{"resolutions_per_s": 0}', *WHY)
        stage.reach(ELSEWHERE)
        assert stage.tenant("show", "region-9")["tenant"]["quota"]["resolutions_per_s"] == 0
        stage.tenant("set", "region-9", "quota", "tenant", "--json-body", '{"resolutions_per_s": 1000}', *WHY)
        stage.reach(ANSWERED)
    finally:
        stage.end()


def test_octets_are_told_and_limited(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 0)
    try:
        stage.tenant("create", "region-9", "--title", "Region 9", *WHY)
        right = f'{{"who": "{stage.fingerprint}", "operations": ["create", "modify", "delete"], "under": "88.118.9"}}'
        stage.tenant("set", "region-9", "right", "r", "--json-body", right, *WHY)
        assert stage.put(NAME, "x" * 100)[0] == 0
        one = stage.tenant("show", "region-9")["tenant"]["octets"]
        assert one > 100
        stage.tenant("set", "region-9", "quota", "tenant", "--json-body", f'{{"octets": {2 * one}}}', *WHY)
        assert stage.put("88.118.9/b", "x" * 100)[0] == 0
        code, refused = stage.put("88.118.9/c", "x")
        assert code != 0 and refused["error"]["code"] == "over_quota"
        assert stage.put(NAME, "y" * 100)[0] == 0, "what is there may change"
        assert stage.put(NAME, "y" * 101)[1]["error"]["code"] == "over_quota"
        assert stage.put(NAME, "y" * 90)[0] == stage.put("88.118.9/b", "y" * 110)[0] == 0
        stage.again()
        shown = stage.tenant("show", "region-9")["tenant"]
        assert (shown["octets"], shown["quota"]["octets"], shown["identifiers"]) == (2 * one, 2 * one, 2)
    finally:
        stage.up.kill()


async def test_a_suspension_holds_at_every_member(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        three.sources = (SourceSettings(None, ("88.300",), hosted="region"),)
        await three.start(1)
        await three.admit_all()
        await three.start(2, 3)
        await three.placed_everywhere("region")

        async def write(*changes: Change) -> None:
            hosted = three.copy(three.leader("region"), "region").hosted
            assert hosted is not None
            for change in changes:
                assert (await Clerk(hosted, now_ms).change(change, NOTHING)).trouble is None

        views = {}
        for number, world in three.worlds.items():
            port = MemberPort()
            port.member = world.member
            views[number] = TenantViews(port, ["region"])
            await views[number].start()

        async def reach(wanted: int) -> None:
            async with asyncio.timeout(30):
                for one in views.values():
                    inbox = Inbox()
                    while inbox.code != wanted:
                        inbox = Inbox()
                        assert Batcher(one).ask(inbox, None, Question(b"88.300/a"))
                        await until(lambda inbox=inbox: inbox.code)  # type: ignore[misc]
                        await asyncio.sleep(0.02)  # a 401 comes at once, and the looker needs its turn

        try:
            suspended = Tenant(title="x", suspended="unpaid", answered_while_suspended=False)
            await write(put("88.300/a"))
            await reach(1)
            await write(Change(OP_PUT, key_of(suspended, "region"), value_of(suspended)))
            await reach(401)
            await write(Change(OP_PUT, key_of(suspended, "region"), value_of(Tenant(title="x"))))
            await reach(1)
            positions = {three.copy(number, "region").store.state().position for number in three.worlds}
            assert len(positions) == 1
            assert len({str(three.copy(number, "region").store.digest_at(*positions)) for number in three.worlds}) == 1
            assert len({three.copy(number, "region").store.octets for number in three.worlds}) == 1
        finally:
            for one in views.values():
                await one.stop()
