"""Switches one rule off inside the real code, so that the test that guards it can be seen turning red.

A plant names a function and replaces one stretch of its source; the function's code object is exchanged, so that everybody who
imported it gets the planted one. As a pytest plugin (`-p tests.unit.docs.planting`) it runs every test that a plant of the table
names under that plant, and writes what became of each to the file named by PLANTED_RESULTS. Only tests do this: the product has
no switch for any rule.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import json
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

RESULTS = "PLANTED_RESULTS"


@dataclass(frozen=True, slots=True)
class Plant:
    """A stretch of a function's source and what stands in its place.

    Args:
        where: "package.module:Class.function" or "package.module:function".
        old: must occur exactly once; new: takes its place.
    """

    where: str
    old: str
    new: str


def function_of(where: str) -> FunctionType:
    """The plain function behind a name, whatever wraps it."""
    module, _, path = where.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    found = getattr(found, "fget", None) or getattr(found, "__func__", found)
    return inspect.unwrap(found)


def planted_code(function: FunctionType, old: str, new: str) -> CodeType:
    """The function's code with `new` for `old`. Raises AssertionError when the place is not there exactly once."""
    source = textwrap.dedent(inspect.getsource(function))
    count = source.count(old)
    assert count == 1, f"{function.__qualname__} holds {old!r} {count} times: the plant must follow the code"
    tree = ast.parse(source.replace(old, new))
    inner = tree.body[0]
    assert isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
    inner.decorator_list = []
    outer = ast.parse(f"def outer({', '.join(function.__code__.co_freevars)}):\n    pass")
    assert isinstance(outer.body[0], ast.FunctionDef)
    outer.body[0].body = [inner]
    compiled = compile(
        ast.fix_missing_locations(outer), f"<planted {function.__qualname__}>", "exec", __future__.annotations.compiler_flag, True
    )
    return _code_named(_code_named(compiled, "outer"), function.__name__)


def _code_named(code: CodeType, name: str) -> CodeType:
    return next(one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == name)


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """The rule is off inside."""
    function = function_of(plant.where)
    kept = function.__code__
    function.__code__ = planted_code(function, plant.old, plant.new)
    try:
        yield
    finally:
        function.__code__ = kept


def _outcome(item: pytest.Item, plant: Plant) -> str:
    """The first line of what turned red, "" when nothing did."""
    try:
        with planted(plant):
            reports = runtestprotocol(item, log=False, nextitem=None)
    except AssertionError as exc:
        return f"cannot be planted: {exc}"
    for report in reports:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            return f"red: {crash.message.splitlines()[0][:160] if crash else str(report.longrepr)[:160]}"
    return "skipped" if any(report.skipped for report in reports) else ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    from tests.unit.docs.rules import ROWS

    path = Path(os.environ[RESULTS])
    results = json.loads(path.read_text()) if path.exists() else {}
    for row in ROWS:
        if isinstance(row.off, Plant) and row.test in (item.nodeid, item.nodeid.partition("[")[0]):
            found = _outcome(item, row.off)
            if not results.get(row.name, "").startswith("red"):  # one case of several is enough
                results[row.name] = found
    path.write_text(json.dumps(results))
    return True
