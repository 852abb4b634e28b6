"""`zaibei block` against `zaibei up`, and on three members: planned, signed, in force everywhere, lifted, never in the copy."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hosting.answer.question import Answer, Question
from hosting.front.batcher import Batcher
from hosting.tenant.edge_clerk import Clerk
from ops.blocks import owned_by
from ops.calls import CopyHolds
from ops.operators.approval import approve
from ops.operators.blocks import BlockDesk, Wish
from ops.operators.book import Book
from ops.up import MemberPort
from replica.member.settings import SourceSettings
from replica.model.errors import Code, ZaibeiError
from replica.model.precondition import NOTHING
from replica.model.signing import Signer
from tests.integration.cluster_world import cluster
from tests.integration.member_world import put, until
from tests.integration.test_register_cli import FILE, Up, run
from tests.unit.front.world import ask_http, ask_tcp, ask_udp, code_of, resolution

LI = Signer(Ed25519PrivateKey.generate())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def written(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_an_order_from_plan_to_its_end(tmp_path: Path) -> None:
    _, mine = run("register", "identity", "--name", "tenant-9", "--identity", str(tmp_path / "registrar"))
    keys = {name: str(tmp_path / f"{name}.key") for name in ("li.wei", "eve")}
    _, li = run("operator", "add", "li.wei", "--out", keys["li.wei"])
    run("operator", "add", "eve", "--out", keys["eve"])
    file = FILE.replace("http = []", 'http = ["127.0.0.1:0"]').format(registrars=mine["block"]) + "\n" + li["toml"]
    (tmp_path / "zaibei.toml").write_text(file)
    config = ["--config", str(tmp_path / "zaibei.toml")]
    assert run("identity", "create", *config)[0] == 0
    up = Up(tmp_path)
    try:
        client = ["--server", up.addresses[0], "--identity", str(tmp_path / "registrar"),
                  "--member-file", str(tmp_path / "zaibei-data" / "identity" / "certificate.pem")]  # fmt: skip
        for name in ("bad", "good"):
            assert run("register", "put", f"88.118.9/{name}", "--value", "URL=https://example.cn/", *client)[0] == 0
        before = _source(config)
        plan_it = ("block", "plan", "--identifier", "88.118.9/bad", "--number", "17", "--reason", "decision 17", *config)
        assert run(*plan_it, "--until", "2099-01-01")[0] == 4, "an order without a near end"
        assert run(*plan_it, "--until", "tomorrow")[0] == 2
        until = written(now_ms() + 3_600_000)
        code, plan = run(*plan_it, "--until", until)
        assert code == 0 and plan["plan"]["sources"] == ["region-9"]
        token = plan["plan"]["token"]
        asyncio.run(_until_codes(config, "88.118.9/bad", (1, 1, 200)))  # a plan changes nothing
        assert run("block", "run", "--plan", token, "--key", keys["eve"], "--yes", *config)[0] == 3
        assert run("block", "run", "--plan", token, "--key", keys["li.wei"], "--yes", *config)[0] == 0
        asyncio.run(_until_codes(config, "88.118.9/bad", (401, 401, 403)))
        asyncio.run(_until_codes(config, "88.118.9/good", (1, 1, 200)))
        code, listed = run("block", "list", *config)
        assert code == 0 and [one["order"] for one in listed["blocks"]] == ["li.wei/17"]
        assert _source(config) == before, "position, digest and count of the copy know nothing of it"
        assert run("register", "get", "88.118.9/bad", *client)[0] == 0, "who registers it sees it"

        up.kill()
        up = Up(tmp_path)
        asyncio.run(_until_codes(config, "88.118.9/bad", (401, 401, 403)))  # a restart forgets nothing

        code, lift = run("block", "lift", "li.wei/17", "--reason", "appeal upheld", *config)
        assert code == 0
        assert run("block", "run", "--plan", lift["plan"]["token"], "--key", keys["li.wei"], "--yes", *config)[0] == 0
        asyncio.run(_until_codes(config, "88.118.9/bad", (1, 1, 200)))
        assert run("block", "run", "--plan", token, "--key", keys["li.wei"], "--yes", *config)[0] == 7

        code, audit = run("audit", "list", "region-9", "--kind", "block", *config)
        assert code == 0 and [one["what"] for one in audit["records"]] == [
            "order 17 blocks 1 identifiers and prefixes",
            "order li.wei/17 to block is lifted",
            "order 17 blocks 1 identifiers and prefixes",
        ]
        assert [one["effect"] for one in audit["records"]] == [True, True, False]
        assert audit["records"][0]["who"] == ["l…"] and audit["records"][0]["why"] == "masked (11 characters)"
        code, audit = run("audit", "list", "region-9", "--kind", "block", "--reveal", "--by", "zhao", "--why", "case 1", *config)
        assert code == 0 and audit["records"][0]["who"] == ["li.wei"] and audit["records"][0]["why"] == "decision 17"
    finally:
        up.kill()


def _source(config: list[str]) -> tuple[Any, ...]:
    (one,) = run("status", *config)[1]["sources"]
    return one["position"], one["records"], json.dumps(one["detail"]["digest"])


async def _asked(config: list[str], name: str) -> tuple[int, int, int]:
    status = await asyncio.to_thread(run, "status", *config)
    places = {kind: _address(status[1]["addresses"][kind][0]) for kind in ("handle", "http")}
    (over_udp,) = await ask_udp(places["handle"], resolution(name.encode()))
    (over_tcp,) = await ask_tcp(places["handle"], resolution(name.encode()))
    return code_of(over_udp), code_of(over_tcp), (await ask_http(places["http"], f"/api/handles/{name}"))[0]


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def _until_codes(config: list[str], name: str, wanted: tuple[int, int, int]) -> None:
    async with asyncio.timeout(60):
        found = None
        while found != wanted:
            try:
                found = await _asked(config, name)
            except TimeoutError:  # a busy machine stood still, and a datagram that waited over it is dropped
                continue
            await asyncio.sleep(0.1)


class Inbox:
    """A sink that remembers the code of its one answer."""

    code = 0

    def answered(self, context: Any, question: Question, answer: Answer) -> None:
        self.code = int(answer.code)

    def finish(self) -> None:
        pass


async def test_an_order_holds_at_every_member(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        three.sources = (SourceSettings(None, ("88.300",), hosted="region"),)
        await three.start(1)
        await three.admit_all()
        await three.start(2, 3)
        await three.placed_everywhere("region")
        leader = three.leader("region")
        hosted = three.copy(leader, "region").hosted
        assert hosted is not None
        assert (await Clerk(hosted, now_ms).change(put("88.300/bad"), NOTHING)).trouble is None

        async def codes() -> list[int]:
            found = []
            for world in three.worlds.values():
                port, inbox = MemberPort(), Inbox()
                port.member = world.member
                assert Batcher(port).ask(inbox, None, Question(b"88.300/bad"))
                await until(lambda inbox=inbox: inbox.code)  # type: ignore[misc]
                found.append(inbox.code)
            return found

        async def reach(wanted: list[int]) -> float:
            began = time.monotonic()
            async with asyncio.timeout(30):
                while await codes() != wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            return time.monotonic() - began

        await reach([1, 1, 1])
        digests = [three.copy(number, "region").store.digest_at(_position(three, number)) for number in three.worlds]

        def desk_at(number: int) -> BlockDesk:
            member = three.worlds[number].member
            groups = {name: CopyHolds(copy) for name, copy in member.copies.items()}
            return BlockDesk(lambda: groups, lambda: owned_by(member), {"li.wei": LI.public}, Book(), lambda _: None, now_ms)

        async def ordered(wish: Wish) -> None:
            """Where the group is led, which a busy machine may change meanwhile; what was carried out once counts once."""
            async with asyncio.timeout(60):
                while True:
                    try:
                        await until(lambda: three.leader("region"))
                        desk = desk_at(three.leader("region"))
                        done = await desk.run(approve("li.wei", LI, desk.plan(wish)["text"]))
                        assert done["sources"] == ["region"]
                        return
                    except (ZaibeiError, KeyError) as exc:
                        if isinstance(exc, ZaibeiError) and exc.code is Code.NOT_FOUND:
                            return  # lifted by a try before
                        await asyncio.sleep(0.1)

        await ordered(Wish(("88.300/bad",), (), 17, now_ms() + 3_600_000, "decision 17"))
        await reach([401, 401, 401])
        assert digests == [three.copy(number, "region").store.digest_at(_position(three, number)) for number in three.worlds]
        copies = [three.copy(number, "region") for number in three.worlds]
        await until(lambda: len({str(copy.store.audit_page(0, 100).head) for copy in copies}) == 1)  # they agree what was decided
        await ordered(Wish(lifts="li.wei/17", reason="appeal upheld"))
        await reach([1, 1, 1])


def _position(three: Any, number: int) -> Any:
    return three.copy(number, "region").store.state().position
