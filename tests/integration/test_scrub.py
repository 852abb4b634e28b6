"""A member reads its copies through: asked for, told in the status, kept over a restart, healed by a re-seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.admin.values import Status
from replica.member.copy import store_folder
from replica.model.edge_identity import Identity, ensure_identity
from replica.store.edge_rocks import new_batch
from replica.store.scrub import Finding
from tests.integration.member_world import key, running, settings_of, until
from tests.integration.test_reseed import reseeded, two_nodes
from tests.unit.store.support import value


@pytest.fixture
def me(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


async def test_damage_is_told_kept_and_healed(tmp_path: Path, me: Identity) -> None:
    async with two_nodes(tmp_path, me) as (a, b):
        settings = settings_of(tmp_path, me, [a.settings(), b.settings()])
        async with running(settings) as world:
            calls, member = world.calls(), world.member
            scrubs = member.scrubs
            assert scrubs is not None
            assert [row["finding"] for row in await calls.copies()] == [None, None]
            for name in ("node-a", "node-b"):
                await calls.scrub(name)
            await until(lambda: {one and one.finding for one in scrubs.found().values()} == {Finding.SOUND})
            assert scrubs.warnings() == []
            wb = new_batch()
            wb.put(key("88.118/7"), value("https://example.cn/forged"))
            member.copies["node-a"].store._live.rocks.write(wb)
            await calls.scrub("node-a")
            await until(lambda: scrubs.trouble("node-a") is not None)
            status: Status = await calls.status()
            assert any("zaibei source reseed plan node-a" in warning for warning in status.warnings)
            assert [row["finding"] for row in await calls.copies()] == ["different", "sound"]
        async with running(settings) as world:
            scrubs = world.member.scrubs
            assert scrubs is not None and scrubs.trouble("node-a") is not None  # kept over the restart
            assert "node-a" not in world.member.broken
            await reseeded(world, a)
            await world.equal(a)
            assert scrubs.trouble("node-a") is None  # other files: nothing is known of them yet
            assert store_folder(settings.data, "node-a").exists()
