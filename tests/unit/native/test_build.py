"""Choice of the backend, and the build where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from replica import native
from replica.native import build
from tests.unit.native.conftest import fast, needs_c


def backend_in_a_new_process(wanted: str) -> str:
    script = "from replica import native; print(native.BACKEND, native.delta.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "ZAIBEI_NATIVE": wanted}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_environment_forces_the_twin() -> None:
    assert backend_in_a_new_process("python") == "python replica.native.twin"


@needs_c
def test_the_c_module_is_the_default() -> None:
    assert backend_in_a_new_process("") == "c replica.native.fast"
    assert native.BACKEND in backend_in_a_new_process(os.environ.get("ZAIBEI_NATIVE", ""))


def test_without_a_compiler_the_build_says_so_and_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.warns(UserWarning, match="no C compiler found"):
        assert build.build(force=True) is None


@needs_c
def test_a_compiler_that_fails_leaves_the_old_output_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.warns(UserWarning, match="does not compile"):
        assert build.build(force=True) is None
    assert fast.scan(b"", 0).count == 0


@needs_c
def test_a_second_build_does_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = build.build()
        assert first is not None
        made = first.stat().st_mtime_ns
        assert build.build() == first
        assert first.stat().st_mtime_ns == made
