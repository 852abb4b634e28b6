"""What a member's TOML file must say once it is in a cluster: sections that are missing are added, what differs is told. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Values = Mapping[str, str | int | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Part:
    """`text`: to be put at the end of the file, "": nothing. `told`: lines a person has to write into sections that are there."""

    text: str
    told: tuple[str, ...]


def part_of(there: Mapping[str, object], wanted: Mapping[str, Values]) -> Part:
    """What the file lacks.

    Args:
        there: the file as tomllib gives it. wanted: section -> key -> value; empty values are not asked for.
    """
    added: list[str] = []
    told: list[str] = []
    for section, values in wanted.items():
        lines = {key: f"{key} = {_toml(value)}" for key, value in values.items() if value or value == 0}
        table = there.get(section)
        if table is None and lines:
            added += [f"[{section}]", *lines.values(), ""]
        elif isinstance(table, Mapping):
            told += [f"[{section}] {line}" for key, line in lines.items() if _plain(table.get(key)) != _plain(values[key])]
    return Part("\n".join(added), tuple(told))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, list | tuple) else value


def _toml(value: object) -> str:
    """Texts, whole numbers and lists of texts are written alike in TOML and JSON."""
    return json.dumps(_plain(value), ensure_ascii=False)
