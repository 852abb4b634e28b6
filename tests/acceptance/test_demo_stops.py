"""A demo that is stopped leaves no process behind, whoever stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.acceptance.world import ROOT, until


def those_in(folder: Path) -> list[int]:
    """Processes whose working folder is below this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = (entry / "cwd").readlink()
            except OSError:
                continue
            if where.is_relative_to(folder):
                found.append(int(entry.name))
    return found


def test_a_demo_that_is_told_to_stop_ends_its_processes(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ops.cli.main", "demo", "--json", "--keep", str(tmp_path / "k"), "--page", str(tmp_path / "p")]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as demo:
        try:
            until("its processes run", lambda: len(those_in(tmp_path)) >= 6)
            demo.send_signal(signal.SIGTERM)
            output, _ = demo.communicate(timeout=60)
        finally:
            demo.kill()
            left = those_in(tmp_path)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    assert left == []
    assert (demo.returncode, b'"stopped"' in output) == (1, True)
