"""ops/docs/map.md beside the tree: which files it names, and a first sentence for those it lacks.

`python -m tests.unit.docs.code_map` adds new files at the end of their room, in the words of their docstring, and drops those
that are gone; order and wording stay as people made them.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "ops" / "docs" / "map.md"
SUFFIXES = (".py", ".pyi", ".proto", ".c", ".h")
ROOMS = ("proto", "replica", "hosting", "chaos", "ops")
HEADING = re.compile(r"^##+ .*`([\w/]+)/`")
LINE = re.compile(r"^\* `([\w./]+)`: (.+)$")
SENTENCE = re.compile(r"(.*?[.!?])(?=\s|$)(?<!e\.g\.)(?<!i\.e\.)")


def tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files", "-z", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [name for name in listing.split("\0") if name.endswith(SUFFIXES) and (ROOT / name).is_file()]
    return sorted(paths)


def sentence_of(path: str) -> str:
    """What a file says of itself, first sentence."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith((".py", ".pyi")):
        said = ast.get_docstring(ast.parse(text)) or ""
    else:
        said = " ".join(line.strip("/* ") for line in text.splitlines()[:3] if line.startswith(("//", "/*", " *")))
    said = " ".join(said.split("\n\n")[0].split())
    found = SENTENCE.match(said)
    return (found.group(1) if found else said) or "see its first lines."


def named(page: str) -> dict[str, str]:
    """Full path -> sentence, for every line of the map."""
    found: dict[str, str] = {}
    room = ""
    for line in page.splitlines():
        if heading := HEADING.match(line):
            room = heading.group(1)
        elif listed := LINE.match(line):
            path = str(PurePosixPath(room) / listed.group(1))
            assert path not in found, f"{path} is named twice"
            found[path] = listed.group(2)
    return found


def updated(page: str) -> str:
    """The page with new files added to their rooms and gone ones dropped."""
    files, have = set(tracked()), set(named(page))
    missing = sorted(files - have)
    lines: list[str] = []
    room = ""
    for line in page.splitlines():
        heading, listed = HEADING.match(line), LINE.match(line)
        if heading or line.startswith("#"):
            lines = _with_missing(lines, room, missing)
            room = heading.group(1) if heading else ""
        if listed and str(PurePosixPath(room) / listed.group(1)) not in files:
            continue
        lines.append(line)
    return "\n".join(_with_missing(lines, room, missing)) + "\n"


def _with_missing(lines: list[str], room: str, missing: list[str]) -> list[str]:
    """Add what belongs to this very folder behind its last line."""
    mine = [path for path in missing if room and str(PurePosixPath(path).parent) == room]
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    return [*lines[:end], *(f"* `{PurePosixPath(path).name}`: {sentence_of(path)}" for path in mine), *lines[end:]]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
