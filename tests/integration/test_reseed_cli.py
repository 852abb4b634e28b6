"""The commands of a re-seed against a running admin channel."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from ops.admin.values import ReseedPlan
from ops.cli.main import cli
from tests.unit.ops.support import member, serving

PLAN = ReseedPlan("0123456789abcdef", "node-a", "zaibei reseed plan 1\nsource node-a\n", "stores/node-a", "aside/node-a-1")


def run(data: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["source", "reseed", *words, "--data", str(data)])
    return result.exit_code, result.output


def test_plan_then_run(tmp_path: Path) -> None:
    twin = member({})
    twin.reseeds["node-a"] = PLAN
    with serving(twin, tmp_path / "admin.sock"):
        code, told = run(tmp_path, "plan", "node-a")
        assert code == 0 and "source node-a" in told and "Next: zaibei source reseed run --plan 0123456789abcdef" in told
        code, told = run(tmp_path, "plan", "node-a", "--json")
        assert json.loads(told)["plan"]["aside"] == "aside/node-a-1"
        code, told = run(tmp_path, "run", "--plan", PLAN.token, "--json")
        assert code == 0 and json.loads(told)["done"]["source"] == "node-a"
        assert run(tmp_path, "plan", "node-b")[0] == 4
        assert run(tmp_path, "run", "--plan", "ffff")[0] == 4
    assert run(tmp_path, "plan", "node-a")[0] == 8, "nobody runs"
