"""The conformance kit: a source that keeps the rules passes, and breaking any one rule is found as just that rule."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replica.kit import edge_live
from replica.kit.edge_inspect import Inspection
from replica.kit.rules import BY_IDENT, RULES, Group
from replica.kit.settings import Settings
from replica.kit.sheet import Finding, Sheet, worst
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.identity import Peer, Pins
from replica.model.states import Result
from tests.integration.kit_source import PlantedSource, serve

QUICK = Settings(
    watch_s=2.4,
    certificate_s_max=1.0,
    certificate_slack_s=0.2,
    refusal_s=5.0,
    batch_s=6.0,
    quiet_s=0.8,
    nonce_every_s=0.6,
    beat_slack_s=1.0,
)
# Broken rules that are also seen by a neighbour, for the same reason.
ALSO = {
    "records.canonical": {"certificate.equal"},
    "chain.follows": {"chain.gapless", "resume.boundary", "resume.repeat"},
    "batch.limits": {"batch.header", "chain.gapless", "chain.follows"},
    "credit.zero": {"credit.total"},
}
TIMED = {"beats.interval", "certificate.interval"}
AT_ONCE = 6
PLANTS = [rule.ident for rule in RULES if rule.ident not in ("tls.required", "ipv6")]


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Identity]:
    folder = tmp_path_factory.mktemp("kit")
    return ensure_identity(folder / "source", "node-a"), ensure_identity(folder / "me", "me")


def peer(identity: Identity) -> Peer:
    return Peer(identity.name, identity.certificate_pem)


async def inspect(
    identities: tuple[Identity, Identity], plant: str, only: frozenset[Group] | None = None, address: str = "127.0.0.1:0"
) -> dict[str, Finding]:
    """What is found; looked for again, four times at most, where a busy machine was late with beats or certificates by itself."""
    source, mine = identities
    for _ in range(5):
        planted = PlantedSource(source, plant)
        server, where = await serve(planted, Pins((peer(mine),)), address)
        try:
            findings = await Inspection(where, mine, peer(source), QUICK, only=only).run()
        finally:
            await server.stop(0)
        late = {one.rule.ident: one.result for one in findings if one.rule.ident in TIMED and one.result is not Result.PASS}
        if late in ({}, {plant: Result.FAIL}):
            break
    return {finding.rule.ident: finding for finding in findings}


async def test_who_is_late_itself_does_not_say_that_of_a_source(
    identities: tuple[Identity, Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_live.OwnLateness, "worst_s", property(lambda _: 2.0, lambda _, __: None), raising=False)
    source, mine = identities
    server, where = await serve(PlantedSource(source, "beats.interval"), Pins((peer(mine),)), "127.0.0.1:0")
    try:
        findings = await Inspection(where, mine, peer(source), QUICK, only=frozenset({Group.LIVE})).run()
    finally:
        await server.stop(0)
    [found] = [one for one in findings if one.rule.ident == "beats.interval"]
    assert found.result is Result.UNKNOWN and "itself 2.0 s late" in found.detail


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
async def test_a_source_that_keeps_the_rules_passes(identities: tuple[Identity, Identity], address: str) -> None:
    found = await inspect(identities, "", address=address)
    assert {ident: finding.detail for ident, finding in found.items() if finding.result is not Result.PASS} == {}
    assert set(found) == set(BY_IDENT) - {"ipv6"}
    assert worst(found.values()) is Result.PASS


def groups_for(plant: str) -> frozenset[Group]:
    group = BY_IDENT[plant].group
    return frozenset({group, Group.LIVE} if plant in ALSO and "certificate.equal" in ALSO[plant] else {group})


@pytest.fixture(scope="module")
def inspected(
    identities: tuple[Identity, Identity], request: pytest.FixtureRequest
) -> dict[str, dict[str, Finding] | BaseException]:
    """What is found of each broken rule that is tested in this run; several side by side, since most of it is waiting."""
    asked = {item.callspec.params.get("plant") for item in request.session.items if hasattr(item, "callspec")}
    plants = sorted((plant for plant in PLANTS if plant in asked), key=lambda plant: plant in TIMED)  # those by themselves, last

    async def all_of_them() -> list[dict[str, Finding] | BaseException]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(plant: str) -> dict[str, Finding]:
            async with turns:
                return await inspect(identities, plant, groups_for(plant))

        found = await asyncio.gather(*(one(plant) for plant in plants if plant not in TIMED), return_exceptions=True)
        alone = [await asyncio.gather(one(plant), return_exceptions=True) for plant in plants if plant in TIMED]
        return [*found, *(only for [only] in alone)]

    return dict(zip(plants, asyncio.run(all_of_them()), strict=True))


@pytest.mark.parametrize("plant", PLANTS)
def test_each_broken_rule_is_found(inspected: dict[str, dict[str, Finding] | BaseException], plant: str) -> None:
    found = inspected[plant]
    if isinstance(found, BaseException):
        raise found
    failed = {ident for ident, finding in found.items() if finding.result is Result.FAIL}
    assert plant in failed
    assert failed <= {plant} | ALSO.get(plant, set())
    assert worst(found.values()) is Result.FAIL


async def test_an_unreachable_source_is_no_verdict(identities: tuple[Identity, Identity]) -> None:
    source, mine = identities
    with pytest.raises(ZaibeiError, match="unreachable"):
        await Inspection("127.0.0.1:1", mine, peer(source), Settings(call_s=1.0)).run()


async def test_another_source_behind_the_address_is_no_verdict(identities: tuple[Identity, Identity]) -> None:
    source, mine = identities
    server, where = await serve(PlantedSource(source), Pins((peer(mine),)))
    try:
        with pytest.raises(ZaibeiError, match="unreachable"):
            await Inspection(where, mine, peer(mine), Settings(call_s=2.0)).run()
    finally:
        await server.stop(0)


async def test_both_families_must_be_the_same_source(identities: tuple[Identity, Identity]) -> None:
    source, mine = identities
    pins = Pins((peer(mine),))
    one, four = await serve(PlantedSource(source), pins)
    two, six = await serve(PlantedSource(source), pins, "[::1]:0")
    other, wrong = await serve(PlantedSource(source, "describe.sane"), pins, "[::1]:0")
    try:
        for also, result in ((six, Result.PASS), (wrong, Result.FAIL)):
            findings = await Inspection(four, mine, peer(source), QUICK, (also,), frozenset({Group.TLS})).run()
            assert {finding.rule.ident: finding.result for finding in findings}["ipv6"] is result
    finally:
        await asyncio.gather(one.stop(0), two.stop(0), other.stop(0))


async def test_an_empty_log_is_unknown_not_passed(identities: tuple[Identity, Identity]) -> None:
    source, mine = identities
    empty = PlantedSource(source)
    empty.registry.batches.clear()
    empty.registry.content.clear()
    del empty.registry.boundaries[1:]
    server, where = await serve(empty, Pins((peer(mine),)))
    try:
        groups = frozenset({Group.HISTORY, Group.CREDIT, Group.SNAPSHOT})
        findings = await Inspection(where, mine, peer(source), QUICK, only=groups).run()
    finally:
        await server.stop(0)
    results = {finding.rule.ident: finding.result for finding in findings}
    for ident in (
        "batch.header",
        "chain.follows",
        "resume.repeat",
        "credit.zero",
        "records.canonical",
        "keys.owned",
        "deletes.exact",
    ):
        assert results[ident] is Result.UNKNOWN
    assert worst(findings) is Result.UNKNOWN


def test_a_rule_nobody_looked_at_is_unknown() -> None:
    sheet = Sheet()
    sheet.saw("prove.true")
    sheet.unknown("prove.forged", "the call broke")
    sheet.saw("prove.forged")
    results = {finding.rule.ident: finding.result for finding in sheet.findings()}
    assert results.pop("prove.true") is Result.PASS
    assert set(results.values()) == {Result.UNKNOWN}
    sheet.fail("prove.forged", "proved a forged one")
    assert worst(sheet.findings()) is Result.FAIL


def test_plaintext_is_found(identities: tuple[Identity, Identity], tmp_path: Path) -> None:
    """gRPC cannot offer TLS and plaintext on one port: the judge alone, over a plain server beside the real one."""
    import grpc

    from replica.v1 import source_pb2_grpc

    async def look() -> dict[str, Result]:
        source, mine = identities
        plain = grpc.aio.server()
        source_pb2_grpc.add_RegistrySourceServicer_to_server(PlantedSource(source), plain)
        port = plain.add_insecure_port("127.0.0.1:0")
        await plain.start()
        inspection = Inspection(f"127.0.0.1:{port}", mine, peer(source), QUICK, only=frozenset({Group.TLS}))
        await inspection._tls()
        await plain.stop(0)
        return {finding.rule.ident: finding.result for finding in inspection.sheet.findings()}

    assert asyncio.run(look())["tls.required"] is Result.FAIL
