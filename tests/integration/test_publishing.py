"""Publication adapters against what they speak with: a Handle server of ours as the top-level node, a folder, programs."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hosting.answer.port import Found, MemoryAnswerPort, Wants
from hosting.client.admin import AdminKey
from hosting.client.edge_admin import HandleAdmin
from hosting.client.lookup import Server
from hosting.front.edge_front import Front, FrontConfig
from hosting.front.service import FrontService
from hosting.handle.edge_look import Looks
from hosting.handle.edge_registrar import Registrar, Sources
from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Offices, OfficeSettings
from replica.model.catalog import Catalog, Owner
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.keys import encode_key
from replica.model.handle.types import ADMIN_ALL, HsAdmin, encode_admin
from replica.model.handle.values import HandleValue, Reference, decode_record, encode_record
from replica.model.identifier import Identifier, PrefixTree, prefix_key
from replica.model.identity import Pins
from replica.model.signing import Signer
from replica.model.states import Authority, Freshness, Mode, Result
from replica.model.view import SourceView
from replica.takeover.edge_hook import HookConfig, HookPublisher
from replica.takeover.edge_request import RequestConfig, RequestPublisher
from replica.takeover.edge_runner import RunnerConfig, TakeoverRunner
from replica.takeover.edge_top_record import TopRecordConfig, TopRecordPublisher
from replica.takeover.ports import MemorySource
from replica.takeover.publish import Confirmation, Publication
from replica.takeover.request import ANSWER_SUFFIX, DONE, REFUSED, REQUEST_SUFFIX, read_request, write_answer
from tests.unit.takeover.test_machine import READY
from tests.unit.takeover.test_top_record import NODE, OURS, PREFIX, registration, resolution, withdrawal

WAIT_S = 30.0
SHADOW = "88.999"
KEY, PAIR = Reference(b"88/ADMIN", 300), Reference(b"88/ADMIN", 301)
SECRET = b"a secret of the top-level node"
MEMBER, TOP = Signer(Ed25519PrivateKey.generate()), Signer(Ed25519PrivateKey.generate())


class LivePort(MemoryAnswerPort):
    """Answers what the registrar's group holds by now."""

    group: MemoryGroup

    async def get_many(self, wants: Wants) -> Found:
        self.records["top"] = self.group.content.records
        return await super().get_many(wants)


@dataclass
class TopLevel:
    """A top-level node: a Handle server that resolves and registers, over TCP on loopback."""

    group: MemoryGroup
    server: Server

    def put(self, name: str, *values: HandleValue) -> None:
        self.group.content.records[Identifier.parse(name).key()] = encode_record(values)

    def sites(self, prefix: str = PREFIX) -> list[bytes]:
        values = decode_record(self.group.content.records[Identifier.parse(f"0.NA/{prefix}").key()]).values
        return [one.data for one in values if one.type == b"HS_SITE"]


@pytest.fixture
async def top() -> AsyncIterator[TopLevel]:
    group = MemoryGroup("top", [prefix_key("88")])
    view = SourceView("top", age_ms=1, freshness=Freshness.FRESH, authority=Authority.REGISTRATION, ready=True)
    port = LivePort(Catalog(1, PrefixTree({prefix_key("88"): Owner("top", Mode.RECORDS)})), {"top": view})
    port.group = group
    now_ms = lambda: 1_900_000_000_000  # noqa: E731
    offices = Offices([OfficeSettings("top", (prefix_key("88"),), Pins(()))], lambda _: group, now_ms)
    registrar = Registrar(Looks(offices, port), Sources(now_ms, os.urandom))
    service = FrontService(port, registrar=lambda: registrar)
    place = [("127.0.0.1", 0)]
    front = Front(port, FrontConfig(udp=place, tcp=place, http=place), service)
    bound = await front.start()
    found = TopLevel(group, Server("tcp", *bound.tcp[0][:2]))
    public = PRIVATE.public_key().public_numbers()
    numbers = {name: number.to_bytes(256, "big") for name, number in (("n", public.n), ("e", public.e))}
    found.put(
        "88/ADMIN",
        HandleValue(100, b"HS_ADMIN", encode_admin(HsAdmin(ADMIN_ALL, KEY))),
        HandleValue(300, b"HS_SECKEY", SECRET, permissions=0x0C),
        HandleValue(301, b"HS_PUBKEY", encode_key("RSA", numbers)),
    )
    for prefix in (PREFIX, SHADOW):
        admins = [HandleValue(100 + at, b"HS_ADMIN", encode_admin(HsAdmin(ADMIN_ALL, key))) for at, key in enumerate((KEY, PAIR))]
        found.put(f"0.NA/{prefix}", HandleValue(1, b"HS_SITE", NODE, ttl=300), *admins)
    yield found
    await front.stop()


PRIVATE = rsa.generate_private_key(65_537, 2_048)


@pytest.fixture
async def desk(top: TopLevel) -> AsyncIterator[HandleAdmin]:
    found = HandleAdmin(top.server, lambda: AdminKey(KEY, SECRET))
    yield found
    await found.close()


def record(desk: HandleAdmin) -> TopRecordPublisher:
    return TopRecordPublisher(TopRecordConfig("beijing", str(desk.server)), desk)


async def settled(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# -- the record


@pytest.mark.parametrize("key", [AdminKey(KEY, SECRET), AdminKey(PAIR, private=PRIVATE)], ids=["secret", "key pair"])
async def test_the_record_is_changed_and_put_back_over_the_protocol(top: TopLevel, key: AdminKey) -> None:
    desk = HandleAdmin(top.server, lambda: key)
    try:
        for publication in (resolution(9, NODE), registration(10)):
            assert (await record(desk).publish(publication)).confirmed
            assert top.sites() == list(publication.sites)
            assert (await record(desk).publish(publication)).confirmed, "again"
        assert (await record(desk).publish(withdrawal(11))).confirmed
        assert top.sites() == [NODE[:4] + (11).to_bytes(2, "big") + NODE[6:]]
    finally:
        await desk.close()


@pytest.mark.parametrize(
    ("key", "code", "why"),
    [
        (AdminKey(KEY, b"guessed"), Code.NOT_AUTHORISED, "code 403"),
        (AdminKey(Reference(b"88/ADMIN", 7), SECRET), Code.NOT_AUTHORISED, "code 403"),
        (AdminKey(PAIR, private=rsa.generate_private_key(65_537, 2_048)), Code.NOT_AUTHORISED, "code 403"),
    ],
    ids=["secret", "index", "key pair"],
)
async def test_a_wrong_key_changes_nothing_and_is_named(top: TopLevel, key: AdminKey, code: Code, why: str) -> None:
    desk = HandleAdmin(top.server, lambda: key)
    try:
        with pytest.raises(ZaibeiError, match=why) as refused:
            await record(desk).publish(resolution(9, NODE))
        assert refused.value.code is code and top.sites() == [NODE]
    finally:
        await desk.close()


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        desk = HandleAdmin(Server("tcp", "127.0.0.1", taken.getsockname()[1]), lambda: AdminKey(KEY, SECRET))
        with pytest.raises(ZaibeiError) as lost:
            await record(desk).publish(resolution(9, NODE))
        assert lost.value.code is Code.UNREACHABLE
        await desk.close()


async def test_who_only_reads_changes_nothing(top: TopLevel) -> None:
    desk = HandleAdmin(top.server)
    try:
        assert [one.data for one in await desk.read(f"0.NA/{PREFIX}", ("HS_SITE",)) or ()] == [NODE]
        assert await desk.read("0.NA/88.7") is None
        with pytest.raises(ZaibeiError, match="only read"):
            await desk.remove(f"0.NA/{PREFIX}", [1])
    finally:
        await desk.close()


# -- by file


def by_file(folder: Path, resolver: HandleAdmin | None = None, **more: object) -> RequestPublisher:
    plain = RequestConfig("files", folder, folder, "member-1", MEMBER, ("beijing", TOP.public), OURS)
    return RequestPublisher(replace(plain, **more), resolver)  # type: ignore[arg-type]


def requests(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{REQUEST_SUFFIX}"))


def answer(request: Path, result: str = DONE, signer: Signer = TOP) -> None:
    path = request.with_name(request.name.removesuffix(REQUEST_SUFFIX) + ANSWER_SUFFIX)
    path.write_bytes(write_answer(request.read_bytes(), result, "by hand", signer))


async def test_a_request_waits_for_its_signed_answer(tmp_path: Path) -> None:
    publisher = by_file(tmp_path, wait_s_max=0.0)
    said = await publisher.publish(resolution(9, NODE))
    assert not said.confirmed and "nobody has answered yet" in said.detail
    [request] = requests(tmp_path)
    found = read_request(request.read_bytes())
    assert found.publication == resolution(9, NODE) and found.by(MEMBER.public)
    before = request.stat().st_mtime_ns
    for result, signer, why in ((DONE, MEMBER, "no valid signature"), (REFUSED, TOP, "refused by beijing: by hand")):
        answer(request, result, signer)
        said = await publisher.publish(resolution(9, NODE))
        assert not said.confirmed and why in said.detail
    answer(request)
    said = await publisher.publish(resolution(9, NODE))
    assert said.confirmed and "done, says beijing" in said.detail
    assert request.stat().st_mtime_ns == before, "written once"
    request.unlink()
    assert (await by_file(tmp_path, wait_s_max=0.0).publish(resolution(9, NODE))).confirmed and not requests(tmp_path)


async def test_an_answer_that_comes_while_it_looks_is_seen(tmp_path: Path) -> None:
    asking = asyncio.create_task(by_file(tmp_path, wait_s_max=WAIT_S).publish(registration(9)))
    await settled(lambda: bool(requests(tmp_path)))
    answer(requests(tmp_path)[0])
    async with asyncio.timeout(WAIT_S):
        assert (await asking).confirmed


async def test_a_newer_request_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    publisher = by_file(tmp_path, wait_s_max=0.0)
    (tmp_path / "README").write_text("not ours")
    await publisher.publish(resolution(9, NODE))
    answer(requests(tmp_path)[0])
    await by_file(tmp_path, wait_s_max=0.0, member="member-2").publish(resolution(10, NODE))
    await publisher.publish(withdrawal(11))
    assert [path.name for path in requests(tmp_path)] == [
        "88.118_00010_publish_member-2.request",
        "88.118_00011_withdraw_member-1.request",
    ]
    assert sorted(os.listdir(tmp_path))[2:] == ["README"]
    with pytest.raises(ZaibeiError) as refused:
        await publisher.publish(resolution(10, NODE))
    assert refused.value.code is Code.CONFLICT


async def test_what_the_resolver_shows_confirms_and_nothing_less(tmp_path: Path, top: TopLevel, desk: HandleAdmin) -> None:
    publisher = by_file(tmp_path, desk, wait_s_max=0.0, issuer=None)
    assert not (await publisher.publish(resolution(9, NODE))).confirmed
    assert (await record(desk).publish(resolution(9, NODE))).confirmed  # its people do what was asked
    assert (await publisher.publish(resolution(9, NODE))).confirmed
    said = await publisher.publish(withdrawal(10))
    assert not said.confirmed and "our site still stands there" in said.detail
    assert (await record(desk).publish(withdrawal(10))).confirmed
    assert (await publisher.publish(withdrawal(10))).confirmed


async def test_a_folder_that_is_away_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(ZaibeiError) as lost:
        await by_file(tmp_path / "share", wait_s_max=0.0).publish(resolution(9, NODE))
    assert lost.value.code is Code.UNREACHABLE
    with pytest.raises(ZaibeiError, match="nothing could confirm"):
        by_file(tmp_path, issuer=None)


# -- by a program


def program(folder: Path, body: str, mode: int = 0o755) -> HookConfig:
    path = folder / "announce"
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(mode)
    return HookConfig("routes", path)


async def test_a_program_is_told_and_its_exit_code_counts(tmp_path: Path) -> None:
    hook = HookPublisher(program(tmp_path, f'echo "$1 $2 $3 $ZAIBEI_SHADOW $ZAIBEI_ACT" | tee -a {tmp_path}/told\n'))
    assert (await hook.publish(resolution(9))) == Confirmation(True, "exit 0: announce 88.118 9 0 act-9")
    assert (await hook.publish(replace(withdrawal(10), shadow=True))).confirmed
    assert (tmp_path / "told").read_text() == "announce 88.118 9 0 act-9\nwithdraw 88.118 10 1 act-10\n"
    with pytest.raises(ZaibeiError) as refused:
        await hook.publish(resolution(9))
    assert refused.value.code is Code.CONFLICT
    failing = HookPublisher(program(tmp_path, "echo 'no route to\tthe router' >&2; exit 3\n"))
    assert await failing.publish(resolution(9)) == Confirmation(False, "exit 3: no route to the router")


async def test_arguments_are_never_read_by_a_shell(tmp_path: Path) -> None:
    hook = HookPublisher(program(tmp_path, 'echo "$#"\n'))
    said = await hook.publish(Publication(f"; touch {tmp_path}/owned; $(id)", (OURS,), 1, "a"))
    assert said == Confirmation(True, "exit 0: 3") and not (tmp_path / "owned").exists()


async def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    body = f"sleep 600 & echo $! > {tmp_path}/child; echo begun; wait\n"
    hook = HookPublisher(replace(program(tmp_path, body), run_s_max=1.0))
    for _ in range(20):  # on a busy machine the second may be over before the program began
        with pytest.raises(ZaibeiError, match="was killed after") as lost:
            await hook.publish(resolution(9))
        assert lost.value.code is Code.UNREACHABLE and not lost.value.trouble.definite
        if (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip():
            break
    child = int((tmp_path / "child").read_text())
    await settled(lambda: not alive(child))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_program_that_is_given_up_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that is cancelled while its program is being started would cost two files for good."""
    hook, began = HookPublisher(program(tmp_path, "exit 0\n")), asyncio.Event()

    async def slowly(*_: object, **__: object) -> None:
        began.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    before = set(os.listdir("/proc/self/fd"))
    asking = asyncio.ensure_future(hook.publish(resolution(9)))
    await began.wait()
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled() and set(os.listdir("/proc/self/fd")) == before


async def test_what_it_prints_and_leaves_running_holds_up_nobody(tmp_path: Path) -> None:
    hook = HookPublisher(program(tmp_path, f"sleep 30 & echo $! > {tmp_path}/left\nhead -c 300000 /dev/zero | tr '\\0' x\n"))
    said = await hook.publish(resolution(9))
    assert said.confirmed and said.detail == "exit 0: " + "x" * 200
    os.kill(int((tmp_path / "left").read_text()), 9)


@pytest.mark.parametrize(("mode", "code"), [(0o644, Code.INVALID_CONFIG), (0o777, Code.NOT_AUTHORISED)])
async def test_a_program_anybody_may_change_is_not_run(tmp_path: Path, mode: int, code: Code) -> None:
    hook = HookPublisher(program(tmp_path, "exit 0\n", mode))
    with pytest.raises(ZaibeiError) as refused:
        await hook.publish(resolution(9))
    assert refused.value.code is code


async def test_a_program_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ZaibeiError, match="absolute path"):
        HookPublisher(HookConfig("routes", Path("announce")))
    for config in (HookConfig("routes", tmp_path / "gone"), program(tmp_path, "")):
        if config.program.exists():
            config.program.write_text("#!/no/such/interpreter\n")
        with pytest.raises(ZaibeiError) as refused:
            await HookPublisher(config).publish(resolution(9))
        assert refused.value.code is Code.INVALID_CONFIG


# -- all of them


async def test_a_rehearsal_goes_the_whole_way_through_every_adapter(tmp_path: Path, top: TopLevel, desk: HandleAdmin) -> None:
    hook = HookPublisher(program(tmp_path, f'echo "$1 $2 $ZAIBEI_SHADOW" >> {tmp_path}/told\n'))
    files = by_file(tmp_path, wait_s_max=4.0)

    async def answering() -> None:
        while True:
            for request in requests(tmp_path):
                with suppress(FileNotFoundError):  # replaced by a newer one meanwhile
                    answer(request)
            await asyncio.sleep(0.02)

    async def never(endpoints: Sequence[object], prefix: str) -> bool:
        return False

    people = asyncio.create_task(answering())
    try:
        source = MemorySource(READY)
        runner = TakeoverRunner(source, RunnerConfig(OURS, shadow_prefix=SHADOW), [record(desk), files, hook], never)
        check = await runner.rehearse()
        assert check.result is Result.PASS and "3 adapters confirmed 88.999" in check.detail, check.detail
    finally:
        people.cancel()
        await asyncio.gather(people, return_exceptions=True)
    assert (tmp_path / "told").read_text() == "announce 88.999 1\nwithdraw 88.999 1\n"
    assert [site[6:] for site in top.sites(SHADOW)] == [NODE[6:]] and top.sites() == [NODE]
