"""Links between members of a CA: it says number and cluster; revoked and renewed certificates count while the links stand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ops.pki.edge_folder import PkiFolder
from ops.pki.edge_own import issue_into
from replica.consensus.edge_link_trust import TrustedMembers
from replica.model.edge_identity import Identity
from replica.model.errors import ZaibeiError
from replica.model.identity import Pins
from replica.model.trust import Authority, Claims, Role, Trust
from tests.unit.consensus.link_world import CLUSTER, Node, World, until, wire

DAY_S = 86_400.0


class CaWorld(World):
    """Members whose identities a CA gives out."""

    def __init__(self, folder: Path) -> None:
        super().__init__("grpc", folder)
        self.ca = PkiFolder.create(folder / "ca", "test CA")
        self.cluster_of: dict[str, bytes] = {}
        self.lasts_s = DAY_S

    def identity(self, name: str, number: int, role: str = "member") -> Identity:
        cluster = self.cluster_of.get(name, CLUSTER)
        number = number if role == "member" else 0
        return issue_into(self.ca, self.folder / name, Claims(Role(role), name, number, cluster), self.lasts_s)

    def trust(self, identity: Identity) -> TrustedMembers:
        def now() -> Trust:
            authority = Authority.parse([self.ca.roots_pem()], [self.ca.lists_pem()])
            return Trust(Pins(()), authority, frozenset({Role.MEMBER}), CLUSTER)

        return TrustedMembers(identity, now)

    def serial(self, name: str) -> str:
        return next(one.serial for one in self.ca.book().issued if one.name == name)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CaWorld]:
    world = CaWorld(tmp_path)
    yield world
    await world.stop()


async def flows(one: Node, two: Node) -> None:
    await until(lambda: one.links.connected and two.links.connected)
    before = len(two.heard.messages)
    await until(lambda: one.links.send(two.number, wire()) and len(two.heard.messages) > before)


async def test_members_of_one_ca_meet(world: CaWorld) -> None:
    one, two = await world.pair()
    await flows(one, two)
    await flows(two, one)


async def test_a_member_of_another_cluster_of_the_ca_is_refused(world: CaWorld) -> None:
    world.cluster_of["m2"] = b"x" * 16
    one, two = await world.add(1), await world.add(2)
    one.links.start()
    two.links.start()
    world.places(one, two)
    await until(lambda: one.refused(0, "certificate") and "another cluster" in one.links.trouble(2))
    assert one.heard.story == [] and two.heard.story == []


async def test_a_certificate_that_is_no_members_is_refused(world: CaWorld) -> None:
    one = await world.add(1)
    one.links.start()
    identity = world.identity("node-a", 0, role="source")
    with pytest.raises(ZaibeiError, match="source"):
        world.trust(identity).member_of([identity.certificate_pem])


async def test_a_revoked_member_is_lost_within_seconds_and_stays_out(world: CaWorld) -> None:
    one, two = await world.pair()
    await flows(one, two)
    world.ca.revoke(frozenset({world.serial("m2")}))
    await until(lambda: one.links.connected == two.links.connected == frozenset())
    told = len(one.heard.story)
    await until(lambda: one.refused(2, "certificate") + one.refused(0, "certificate") > 2)
    assert len(one.heard.story) == told and "revoked" in two.links.trouble(1) + one.links.trouble(2)


async def test_a_renewed_certificate_is_taken_into_use_while_links_stand(world: CaWorld) -> None:
    one, two = await world.pair()
    old = world.serial("m2")
    world.identity("m2", 2)
    await until(lambda: "lost 1" in two.heard.story)  # it calls anew with the new one
    await flows(one, two)
    world.ca.revoke(frozenset({old}))
    await flows(two, one)
    await until(lambda: one.links.connected == {2} and two.links.connected == {1})
