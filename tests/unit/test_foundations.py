"""Set-up, guards and pins: what the other tests rely on before they start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found.group().lower().replace("_", "-")


def locked(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / lock).read_text(), re.M))


def group(name: str) -> list[str]:
    return [entry for entry in PROJECT["dependency-groups"][name] if isinstance(entry, str)]


def test_everything_asked_for_is_pinned_with_hashes() -> None:
    runtime, everything = locked("requirements.lock"), locked("requirements-dev.lock")
    asked = {name_of(line) for line in PROJECT["project"]["dependencies"]}
    assert asked <= runtime.keys()
    assert asked | {name_of(line) for line in group("build") + group("dev")} <= everything.keys()
    assert {name: everything[name] for name in runtime} == runtime
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert "://" not in text
        assert text.count("--hash=sha256:") >= len(locked(lock))


def test_build_requirements_are_those_of_set_up() -> None:
    assert set(PROJECT["build-system"]["requires"]) <= set(group("build"))


def test_generated_code_is_made_by_the_pinned_generator() -> None:
    pins = [line for line in PROJECT["build-system"]["requires"] if line.startswith("grpcio-tools")]
    assert pins == [f"grpcio-tools=={locked('requirements-dev.lock')['grpcio-tools']}"]
    assert locked("requirements.lock")["grpcio"] == locked("requirements-dev.lock")["grpcio-tools"]


SKIPS = """
import pytest

def test_skips():
    pytest.skip("no C compiler: install gcc")

@pytest.mark.skip(reason="marked away")
def test_marked():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure():
    assert False

def test_passes():
    pass
"""


@pytest.mark.parametrize(
    ("ci", "line"), [("true", "1 failed, 1 passed, 1 xfailed, 1 error"), ("", "1 passed, 2 skipped, 1 xfailed")]
)
def test_a_skip_fails_where_ci_is_true(tmp_path: Path, ci: str, line: str) -> None:
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_some.py").write_text(SKIPS)
    done = run_pytest(tmp_path, ci)
    assert line in done.stdout
    assert "no C compiler: install gcc" in done.stdout
    assert "marked away" in done.stdout


def test_a_module_that_skips_itself_fails_where_ci_is_true(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_whole.py").write_text('import pytest\npytest.skip("needs nftables", allow_module_level=True)\n')
    assert run_pytest(tmp_path, "").returncode == 5  # nothing ran
    done = run_pytest(tmp_path, "true")
    assert done.returncode not in (0, 5)
    assert "needs nftables" in done.stdout


def test_real_processes_come_last(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "conftest.py")
    for name in ("acceptance", "faults", "simulation", "unit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text("def test_it() -> None:\n    pass\n")
    places = re.findall(r"^(\w+)/test_\w+\.py ", run_pytest(tmp_path, "").stdout, re.M)
    assert set(places[:2]) == {"simulation", "unit"} and set(places[2:]) == {"acceptance", "faults"}


def run_pytest(folder: Path, ci: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "no:cacheprovider",
        "-rs",
        str(folder),
    ]
    return subprocess.run(command, env={**os.environ, "CI": ci}, cwd=folder, capture_output=True, text=True, check=False)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A project whose wire contract is committed; its buf is a stand-in that writes the image it is told to."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/image", tmp_path / ".ci/image")
    buf = tmp_path / ".venv/bin/buf"
    buf.parent.mkdir(parents=True)
    buf.write_text('#!/bin/sh\necho new > "$4"\n')
    buf.chmod(0o755)
    (tmp_path / ".gitignore").write_text("/.venv/\n")
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto/image.binpb").write_text("old\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def write_image(folder: Path) -> tuple[int, str]:
    done = subprocess.run([folder / ".ci/image"], cwd=folder, capture_output=True, check=False)
    return done.returncode, (folder / "proto/image.binpb").read_text()


def test_the_wire_contract_is_not_replaced_without_a_decision(published: Path) -> None:
    assert write_image(published) == (4, "old\n")


@pytest.mark.parametrize("stage", ["written", "added", "committed"])
def test_a_new_decision_record_replaces_the_wire_contract(published: Path, stage: str) -> None:
    record = published / "ops/docs/decisions/0009-wider.md"
    record.parent.mkdir(parents=True)
    record.write_text("why\n")
    if stage != "written":
        git(published, "add", ".")
    if stage == "committed":
        git(published, "commit", "-q", "-m", "decision")
    assert write_image(published) == (0, "new\n")


def test_an_old_or_edited_decision_record_does_not_count(published: Path) -> None:
    record = published / "ops/docs/decisions/0001-first.md"
    record.parent.mkdir(parents=True)
    record.write_text("why\n")
    git(published, "add", ".")
    git(published, "commit", "-q", "-m", "decision")
    git(published, "commit", "-q", "--allow-empty", "-m", "later")
    record.write_text("why, in other words\n")
    assert write_image(published) == (4, "old\n")


def test_generated_code_is_current() -> None:
    """Importing what proto/ describes proves that `make proto` ran and that generator and runtime fit."""
    for source in (ROOT / "proto").rglob("*.proto"):
        module = ROOT / source.relative_to(ROOT / "proto").with_name(f"{source.stem}_pb2.py")
        assert module.exists(), f"{module} is missing: run `make proto`"
