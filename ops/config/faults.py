"""Faults of a configuration, and the values of one table read by the schema. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.config.read import WrongError, shown
from ops.config.schema import REQUIRED, SECTIONS, Section
from replica.model.errors import Code, ZaibeiError


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: where, what is wrong, what to write instead."""

    path: str
    what: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; write {self.instead}"


class ConfigError(ZaibeiError):
    """All faults of one configuration."""

    def __init__(self, origin: str, faults: tuple[Fault, ...]) -> None:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        super().__init__(Code.INVALID_CONFIG, f"{origin}: {count}\n" + "\n".join(f"  {fault}" for fault in faults))
        self.origin, self.faults = origin, faults


@dataclass(slots=True)
class Reading:
    """What was read so far: values and origins by path, faults in the order found."""

    origin: str
    faults: list[Fault] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)

    def fault(self, path: str, what: str, instead: str) -> None:
        self.faults.append(Fault(path, what, instead))

    def table(self, section: Section, path: str, given: object) -> dict[str, Any]:
        """Every key of a section: read from `given`, or its default. A faulty or missing key is left out of the result."""
        if not isinstance(given, Mapping):
            self.fault(path, f"{shown(given)} is not a table", f"[[{section.name}]]" if section.many else f"[{section.name}]")
            return {}
        for name in given:
            if section.key(name) is None:
                self._unknown(f"{path}.{name}", name, [key.name for key in section.keys])
        values: dict[str, Any] = {}
        for key in section.keys:
            at = f"{path}.{key.name}"
            here = key.name in given
            value = given[key.name] if here else key.default
            if value is REQUIRED:
                self.fault(at, "is missing", f"{key.name} = {key.example}")
                continue
            if not here and value == "":  # an optional text that was left out: nothing to read
                values[key.name] = ""
                self.origins[at] = "default"
                continue
            try:
                values[key.name] = key.reader(value)
                self.origins[at] = self.origin if here else "default"
            except WrongError as wrong:
                self.fault(at, wrong.what, wrong.instead)
        return values

    def section(self, root: Mapping[str, object], name: str) -> dict[str, Any]:
        return self.table(SECTIONS[name], name, root.get(name, {}))

    def sections(self, root: Mapping[str, object], name: str) -> list[dict[str, Any]]:
        given = root.get(name, [])
        if not isinstance(given, list):
            self.fault(name, f"is one table, but there can be several {name}s", f"[[{name}]], with two brackets")
            return []
        return [self.table(SECTIONS[name], f"{name}[{place}]", item) for place, item in enumerate(given, 1)]

    def unknown_sections(self, root: Mapping[str, object]) -> None:
        for name in root:
            if name not in SECTIONS:
                self._unknown(name, name, list(SECTIONS))

    def _unknown(self, path: str, name: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name, known, n=1)
        self.fault(path, "is not known", f"{near[0]!r} (did you mean that?)" if near else "one of " + ", ".join(known))
