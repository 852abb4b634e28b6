"""Blocks of enrolled sources are looked for as long as the member runs, whatever a person does to the files meanwhile."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops.config.edge_load import enrolled_folder
from ops.enrolling import Enrolment


def test_a_block_that_is_moved_while_it_is_looked_at_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor puts a new file in the place of the old one. The watch must outlive that, or no source is taken in any more."""
    folder = enrolled_folder(tmp_path)
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.toml").write_text("# a block\n")
    gone = folder / "a.toml"
    glob = Path.glob

    def moved(self: Path, pattern: str) -> Any:
        found = [*glob(self, pattern)]
        gone.unlink(missing_ok=True)
        return iter(found)

    config: Any = SimpleNamespace(member=SimpleNamespace(data=tmp_path), sources=())
    unused: Any = None
    monkeypatch.setattr(Path, "glob", moved)
    made = Enrolment(config, "", unused, unused, unused)
    assert [name for name, _ in made._mark] == ["b.toml"]
