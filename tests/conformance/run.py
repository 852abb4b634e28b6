"""Run data-driven files through the core: `python -m tests.conformance.run FOLDER`. Ends with "N passed, N failed"."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.datadriven import Block, parse_command, read_blocks, without_log_lines
from tests.conformance.pure_files import CHANGE_COMMANDS, QUORUM_COMMANDS, ChangeFile, run_quorum
from tests.conformance.scene import COMMANDS, Scene


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one file. `kind`: quorum, confchange, interaction, or "" when it could not be read."""

    path: Path
    kind: str
    fault: str = ""


def kind_of(blocks: list[Block]) -> str:
    """Told by the commands; "" when they are of no kind."""
    names = {parse_command(block.lines[0]).name for block in blocks}
    for kind, commands in (("quorum", QUORUM_COMMANDS), ("confchange", CHANGE_COMMANDS), ("interaction", frozenset(COMMANDS))):
        if names & commands:
            return kind
    return ""


def run_file(path: Path) -> Verdict:
    try:
        blocks = read_blocks(path)
    except (OSError, ValueError) as exc:
        return Verdict(path, "", str(exc))
    kind = kind_of(blocks)
    if not kind:
        return Verdict(path, "", "none of its commands is known")
    runners: dict[str, Callable[[Block], str]] = {
        "quorum": run_quorum,
        "confchange": ChangeFile().run,
        "interaction": Scene().run,
    }
    for block in blocks:
        fault = _run_block(runners[kind], block, exact=kind != "interaction")
        if fault:
            return Verdict(path, kind, f"line {block.line}: {block.lines[0]}\n{fault}")
    return Verdict(path, kind)


def _run_block(run: Callable[[Block], str], block: Block, *, exact: bool) -> str:
    """What differs; "" when nothing does."""
    try:
        said = run(block)
    except Exception as exc:  # noqa: BLE001 - a file of another version must not end the run; it counts as failed
        return f"{type(exc).__name__}: {exc}"
    expected = block.expected if exact else without_log_lines(block.expected)
    if said == expected:
        return ""
    return "\n".join(difflib.unified_diff(expected.split("\n"), said.split("\n"), "expected", "said", lineterm=""))


def run_folder(folder: Path) -> list[Verdict]:
    """All .txt files under a folder, those that are no such data left out."""
    return [run_file(path) for path in sorted(folder.rglob("*.txt"))]


def main(arguments: list[str]) -> int:
    """Exit 1 when a quorum or confchange file fails, or none could be read; scenarios are counted."""
    verdicts = run_folder(Path(arguments[0])) if arguments else []
    readable = [verdict for verdict in verdicts if verdict.kind]
    failed = [verdict for verdict in verdicts if verdict.fault]
    for verdict in failed:
        fault = verdict.fault if "-v" in arguments else verdict.fault.split("\n")[0]
        print(f"{verdict.path} ({verdict.kind or 'not read'}): {fault}")
    print("failed: " + (" ".join(verdict.path.name for verdict in failed) or "none"))
    print(f"{len(verdicts) - len(failed)} passed, {len(failed)} failed")
    return int(not readable or any(verdict.kind in ("quorum", "confchange") for verdict in failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
