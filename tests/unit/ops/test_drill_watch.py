"""A real incident beside a drill: what stands otherwise than at its begin stops it; without a member nothing is watched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ops.drills.desk import Desk
from tests.unit.ops.support import member, serving


@pytest.mark.parametrize(
    "change",
    [{"authority": "RESOLUTION"}, {"authority": "REGISTRATION"}, {"feed": "FORKED"}, {"feed": "HELD"}, {"feed": "DIVERGED"}],
)
async def test_a_source_that_gets_into_trouble_is_an_incident(tmp_path: Path, change: dict[str, str]) -> None:
    calls, socket = member({}), tmp_path / "admin.sock"
    with serving(calls, socket):
        look = Desk(tmp_path / "drills", socket).watch()
        assert (await look()).incidents == (), "node-a was held before the drill began: that is not new"
        calls.state.sources[1] = replace(calls.state.sources[1], **change)
        (incident,) = (await look()).incidents
        assert incident == f"node-b is {next(iter(change.values()))}"


async def test_a_member_that_falls_silent_is_an_incident(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    with serving(member({}), socket):
        look = Desk(tmp_path / "drills", socket).watch()
        assert (await look()).incidents == ()
    assert "does not answer" in (await look()).incidents[0]


async def test_without_a_member_there_is_nothing_to_watch(tmp_path: Path) -> None:
    look = Desk(tmp_path / "drills", tmp_path / "admin.sock").watch()
    assert (await look()).incidents == ()
