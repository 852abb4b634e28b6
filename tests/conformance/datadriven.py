"""Data-driven files: blocks of a command, its input, and the output that is expected."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_ARGUMENT = re.compile(r"([\w.-]+)=(\([^)]*\)|\S*)|(\S+)")
_LOG_LINE = re.compile(r"^\s*(DEBUG|INFO|WARN|ERROR|FATAL)\b")


@dataclass(slots=True)
class Command:
    """One line: a name, words, and named values, each a list."""

    name: str
    words: list[str] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)
    rest: str = ""  # all behind the first word of the arguments, as written

    def numbers(self, name: str) -> list[int]:
        return [int(value) for value in self.named.get(name, [])]

    def number(self, name: str, default: int) -> int:
        return int(self.named[name][0]) if name in self.named else default

    def flag(self, name: str) -> bool:
        return self.named.get(name, ["false"]) in (["true"], [""], [])

    def text(self, name: str, default: str = "") -> str:
        return self.named.get(name, [default])[0]


@dataclass(slots=True)
class Block:
    """A block of a file. `lines`: its command line and the lines of input under it."""

    line: int
    lines: list[str]
    expected: str


def parse_command(line: str) -> Command:
    name, _, tail = line.strip().partition(" ")
    command = Command(name)
    for key, value, word in _ARGUMENT.findall(tail):
        if word:
            command.words.append(word)
        else:
            inner = value[1:-1] if value.startswith("(") else value
            command.named[key] = [part.strip() for part in re.split(r"[,\s]+", inner.strip()) if part.strip()] if inner else []
    command.rest = tail.strip().partition(" ")[2].strip()
    return command


def read_blocks(path: Path) -> list[Block]:
    """Raises ValueError: no file of this kind."""
    blocks: list[Block] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].startswith("#"):
            at += 1
            continue
        start, head = at, []
        while at < len(lines) and lines[at] != "----":
            if lines[at].strip() and not lines[at].startswith("#"):
                head.append(lines[at])
            at += 1
        if at == len(lines):
            raise ValueError(f"{path}:{start + 1}: a command without ----")
        expected, at = _read_expected(lines, at + 1)
        blocks.append(Block(start + 1, head, expected))
    if not blocks:
        raise ValueError(f"{path}: no command in it")
    return blocks


def _read_expected(lines: list[str], at: int) -> tuple[str, int]:
    found: list[str] = []
    if at < len(lines) and lines[at] == "----":
        at += 1
        while at < len(lines) and not (lines[at] == "----" and at + 1 < len(lines) and lines[at + 1] == "----"):
            found.append(lines[at])
            at += 1
        return "\n".join(found), at + 2
    while at < len(lines) and lines[at] != "":
        found.append(lines[at])
        at += 1
    return "\n".join(found), at


def without_log_lines(text: str) -> str:
    """Drop the other project's log lines; a block that said nothing else said "ok"."""
    kept = [line for line in text.split("\n") if not _LOG_LINE.match(line)]
    return "\n".join(kept).strip("\n") or "ok"
