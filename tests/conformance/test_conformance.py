"""The core against the data-driven files that are kept here: exact counts, so that a file that stops matching is seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from replica.consensus.raft import quorum
from tests.conformance import run
from tests.conformance.scene_node import SceneCore

FILES = Path(__file__).parent / "raft"


def passed(verdicts: list[run.Verdict]) -> Counter[str]:
    return Counter(verdict.kind for verdict in verdicts if not verdict.fault)


def test_all_files_match() -> None:
    verdicts = run.run_folder(FILES)
    assert [f"{verdict.path.name}: {verdict.fault}" for verdict in verdicts if verdict.fault] == []
    assert passed(verdicts) == Counter(quorum=4, confchange=9, interaction=16)


def test_a_file_fails_when_one_expected_line_differs(tmp_path: Path) -> None:
    for kind, name in (("quorum", "joint_vote.txt"), ("confchange", "zero.txt"), ("interaction", "single_node.txt")):
        text = (FILES / kind / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("VoteWon", "VoteLost").replace("match=0", "match=1").replace("1/4", "1/5"))
    assert [bool(verdict.fault) for verdict in run.run_folder(tmp_path)] == [True, True, True]


@pytest.mark.parametrize(
    ("rule", "off"),
    [
        ("_counts_itself", lambda core: core.log.last),
        ("_heartbeat_commit", lambda core, progress: core.commit),
        ("_flow_is_full", lambda core, progress: False),
        ("_may_learn_commit", lambda core, progress: False),
        ("_lease_protects", lambda core, message: False),
        ("_log_is_current", lambda core, message: True),
        ("_clamp_commit", lambda core, message, last_new: core.commit),
    ],
)
def test_files_see_a_rule_that_is_turned_off(rule: str, off: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SceneCore, rule, off)
    assert passed(run.run_folder(FILES / "interaction"))["interaction"] < 16


def test_exit_code_and_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([str(FILES)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["failed: none", "29 passed, 0 failed"]
    assert run.main([str(tmp_path)]) == 1, "a folder without files proves nothing"
    (tmp_path / "notes.txt").write_text("some words\n")
    assert run.main([str(tmp_path)]) == 1
    capsys.readouterr()
    scene = (FILES / "interaction" / "single_node.txt").read_text(encoding="utf-8")
    (tmp_path / "scene.txt").write_text(scene.replace("Term:1", "Term:2"))
    assert run.main([str(tmp_path)]) == 0, "scenarios are counted, they do not fail the run"
    assert capsys.readouterr().out.splitlines()[-2:] == ["failed: notes.txt scene.txt", "0 passed, 2 failed"]
    (tmp_path / "vote.txt").write_text("vote cfg=(1) votes=(y)\n----\nVoteLost\n")
    assert run.main([str(tmp_path)]) == 1


def test_an_empty_set_of_voters_limits_nothing() -> None:
    assert quorum.majority_index([], {}) == quorum.NO_LIMIT
