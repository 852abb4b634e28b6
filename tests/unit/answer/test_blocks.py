"""An order to block stands over every answer: by the catalog, and by the view of a source that lives elsewhere."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest

from hosting.answer.heads import Heads
from hosting.answer.question import Answer, Question
from hosting.answer.resolve import Plan, head_of, plan
from hosting.front.batcher import Batcher
from hosting.front.edge_front import FrontConfig
from hosting.front.port_wire import decode_catalog, decode_found, encode_catalog, encode_found
from hosting.v1 import resolve_pb2, resolve_pb2_grpc
from replica.member.elsewhere import answer_of, read_of
from replica.model.blocks import Blocked, Blocks
from replica.model.group_state import OverlaySites
from replica.model.handle.message import decode_message
from replica.model.handle.values import HandleValue
from replica.model.identifier import Identifier, prefix_key
from tests.unit.answer.test_resolve import CATALOG, ENTERPRISE_SITE, EXPIRED, FRESH, URL, ask, record, site
from tests.unit.front.world import NAME, ask_http, ask_tcp, ask_udp, resolution, serving, world

FOR_EVER = 4_000_000_000_000
ROUTE = record(HandleValue(1, b"HS_SITE", ENTERPRISE_SITE))


def blocked(text: str, until_ms: int = FOR_EVER) -> Blocked:
    octets = Identifier.parse(text).key() if "/" in text else prefix_key(text)
    return Blocked(octets, until_ms, "li.wei/17")


CASES = [
    # what is blocked, what is asked, what is stored, the code without the order
    ("88.118.8/bad", "88.118.8/bad", {"88.118.8/bad": URL}, 1),
    ("88.118.8/bad", "88.118.8/BAD", {"88.118.8/bad": URL}, 1),
    ("88.118.8/bad", "88.118.8/bad", {}, 100),
    ("88.118.8", "88.118.8/x", {"88.118.8/x": URL}, 1),
    ("88.118", "88.118.8.7/x", {"88.118.8.7/x": URL}, 1),
    ("88.118.8", "0.NA/88.118.8", {"0.NA/88.118.8": ROUTE}, 1),
    ("88.119.8", "88.119.8/x", {"0.NA/88.119.8": ROUTE}, 302),
    ("88.119", "88.119.8/x", {"0.NA/88.119.8": ROUTE}, 302),
    ("88.120.5", "88.120.5.1/x", {"0.NA/88.120.5.1": ROUTE}, 302),
    ("oid:1.2.156", "oid:1.2.156.7", {"oid:1.2.156.7": URL}, 1),
]


@pytest.mark.parametrize("by", ["catalog", "view"])
@pytest.mark.parametrize(("named", "asked", "stored", "otherwise"), CASES)
def test_every_kind_of_answer(by: str, named: str, asked: str, stored: dict[str, bytes], otherwise: int) -> None:
    assert ask(asked, stored).code == otherwise
    catalog = replace(CATALOG, blocks=Blocks([blocked(named)])) if by == "catalog" else CATALOG
    for copy in (EXPIRED, FRESH):
        view = copy if by == "catalog" else replace(copy, blocks=(blocked(named),))
        answer = ask(asked, stored, view, catalog)
        assert answer.code == 401 and answer.octets.startswith(b"blocked by order li.wei/17 until ")
    assert ask("88.118.6/other", {"88.118.6/other": URL}, view, catalog).code == (401 if named == "88.118" else 1)


def test_an_overlay_without_an_owner_is_blocked_too() -> None:
    prefix = prefix_key("99.1")
    overlay = {prefix: OverlaySites(prefix, (site(2641),), 9, "act")}
    assert ask("0.NA/99.1", {}, catalog=replace(CATALOG, overlays=overlay)).code == 1
    catalog = replace(CATALOG, overlays=overlay, blocks=Blocks([blocked("99.1")]))
    assert ask("0.NA/99.1", {}, catalog=catalog).code == 401


def test_what_is_over_is_answered_again_and_the_short_way_stays_closed_meanwhile() -> None:
    catalog = replace(CATALOG, blocks=Blocks([blocked("88.118.8/bad", 1_000)]))
    asked = Question(b"88.118.8/bad")
    assert not isinstance(plan(asked, catalog, 999), Plan) and isinstance(plan(asked, catalog, 1_000), Plan)
    assert head_of(b"88.118.8", catalog) is None and head_of(b"88.118.7", catalog) is not None
    heads = Heads()
    heads.catch_up(CATALOG)
    assert heads.find(b"88.118.8") is not None
    heads.catch_up(catalog)
    assert heads.find(b"88.118.8") is None, "what was learnt before the order is forgotten"


def test_orders_travel_to_fronts_and_between_members() -> None:
    orders = (blocked("88.118.8/bad"), blocked("88.119"))
    catalog = decode_catalog(encode_catalog(replace(CATALOG, blocks=Blocks(orders))))
    assert sorted(catalog.blocks) == sorted(orders)
    view = replace(FRESH, blocks=orders)
    assert decode_found(encode_found({"top": ([None], view)}, 5))[1]["top"][1] == view
    assert read_of(answer_of(([None], view)), 1, 0)[1] == view


@pytest.mark.parametrize("by", ["catalog", "view"])
async def test_over_every_protocol(by: str) -> None:
    port = world()
    order = blocked(NAME.decode())
    if by == "catalog":
        port.held = replace(port.held, blocks=Blocks([order]))
    else:
        port.views["gd"] = replace(port.views["gd"], blocks=(order,))
    async with serving(port, config=FrontConfig(grpc=(("127.0.0.1", 0),))) as (_, bound):
        message = resolution(NAME)
        (over_udp,), over_tcp = await ask_udp(bound.udp[0], message), (await ask_tcp(bound.tcp[0], message))[0]
        for answer in (over_udp, over_tcp):
            assert decode_message(answer).header.response_code == 401
        status, _, body = await ask_http(bound.http[0], f"/api/handles/{NAME.decode()}")
        assert status == 403 and b'"responseCode":401' in body and b"li.wei/17" in body
        async with grpc.aio.insecure_channel(f"127.0.0.1:{bound.grpc[0][1]}") as channel:
            stub: resolve_pb2_grpc.ResolverAsyncStub = resolve_pb2_grpc.ResolverStub(channel)
            one = await stub.Resolve(resolve_pb2.ResolveRequest(identifier=NAME.decode()))
            assert one.answer.response_code == 401 and not one.answer.values
            many = await stub.BatchResolve(resolve_pb2.BatchResolveRequest(identifiers=[NAME, b"88.118.8/big"]))
            assert many.response_codes == bytes((1, 145, 0, 1)) and not many.values[0] and many.values[1]
        assert decode_message((await ask_tcp(bound.tcp[0], resolution("88.118.8/设备".encode())))[0]).header.response_code == 1


async def test_its_end_comes_by_the_clock_of_whoever_answers() -> None:
    class Inbox:
        code = 0

        def answered(self, context: object, question: Question, answer: Answer) -> None:
            self.code = int(answer.code)

        def finish(self) -> None: ...

    now_s, port = [5.0], world()
    port.held = replace(port.held, blocks=Blocks([blocked("88.118.8", 6_000)]))
    batcher = Batcher(port, wall_clock=lambda: now_s[0])
    for at_s, wanted in ((5.0, 401), (5.999, 401), (6.0, 1), (5.5, 401)):
        now_s[0], inbox = at_s, Inbox()
        assert batcher.ask(inbox, None, Question(NAME))
        for _ in range(10):
            await asyncio.sleep(0)
        assert inbox.code == wanted, at_s
