"""The house style that a machine can check. Each rule says what to do instead, and each is shown to bite on a planted fault."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70  # without the docstring
PRODUCT = ("replica", "hosting", "chaos", "ops")
# What replica's rooms may speak: values, the per-record loops, generated messages. member joins rooms and may know them all.
SHARED_IN_REPLICA = ("model", "native", "v1")


@dataclass(frozen=True, slots=True)
class Rule:
    """One banned pattern: where it counts, what to do instead, and an example that must be caught."""

    pattern: str
    applies: Callable[[PurePosixPath], bool]
    instead: str
    planted: tuple[str, str]


def any_text(path: PurePosixPath) -> bool:
    return True


def any_python(path: PurePosixPath) -> bool:
    return path.suffix == ".py"


def library(path: PurePosixPath) -> bool:
    return any_python(path) and path.parts[0] in ("replica", "hosting")


def pure_logic(path: PurePosixPath) -> bool:
    """Files that get time and randomness as arguments: everything but edges, servers and the member that joins them."""
    is_edge = path.name.startswith("edge_") or path.parts[:2] in (
        ("replica", "member"),
        ("replica", "native"),
        ("hosting", "front"),
    )
    return library(path) and not is_edge


RULES = {
    "leftover": Rule(
        r"\b(TODO|FIXME|XXX)\b|NotImplementedError",
        any_python,
        "finish it, or leave it out and say so",
        ("ops/a.py", "# TODO: later"),
    ),
    "output": Rule(r"(?<![\w.])print\(", library, "return it, or log it through logging", ("replica/a.py", "    print(1)")),
    "code from bytes": Rule(
        r"\b(import|from) (pickle|marshal|shelve)\b|(?<![\w.])(eval|exec)\(",
        any_python,
        "protobuf or msgspec: nothing executes bytes from elsewhere",
        ("tests/a.py", "import pickle"),
    ),
    "hidden clock": Rule(
        r"\btime\.(time|time_ns|monotonic|monotonic_ns|perf_counter|sleep)\(|\bdatetime\.(now|utcnow)\(",
        pure_logic,
        "take now_ms as an argument; clocks are read in edge_*.py",
        ("replica/feed/session.py", "now = time.time()"),
    ),
    "hidden chance": Rule(
        r"(?<![\w.])random\.\w+\(|\bos\.urandom\(|(?<![\w.])secrets\.\w+\(|\buuid\.uuid4\(",
        pure_logic,
        "take random octets or a random.Random as an argument",
        ("replica/feed/session.py", "nonce = os.urandom(16)"),
    ),
    "swallowed cancellation": Rule(
        r"asyncio\.wait_for\(",
        lambda path: any_python(path) and path.parts[0] in PRODUCT,
        "async with asyncio.timeout(...): Python 3.11's wait_for may lose a cancellation that races with completion",
        ("ops/a.py", "await asyncio.wait_for(event.wait(), 1)"),
    ),
    "path of one machine": Rule(
        r"(?<![\w.~{}/-])/(root|work|home/\w+|Users/\w+)/\w",
        any_text,
        "a path relative to the project",
        ("Makefile", "cp /root/x ."),
    ),
    "registry address": Rule(
        r"py[p]i\.org|python[h]osted\.org|c[r]ates\.io|registry\.np[m]js|--(extra-)?index-url\b",
        any_text,
        "leave the choice of a registry to the machine's own settings",
        ("requirements.lock", "--extra-index-url x"),
    ),
}


def tracked() -> list[PurePosixPath]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [PurePosixPath(name) for name in listing.split("\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]


def faults_of_pattern(rule: Rule, path: PurePosixPath, text: str) -> list[str]:
    if not rule.applies(path):
        return []
    lines = enumerate(text.splitlines(), 1)
    return [
        f"{path}:{number}: {line.strip()[:80]!r}; instead: {rule.instead}"
        for number, line in lines
        if re.search(rule.pattern, line)
    ]


def faults_of_size(path: PurePosixPath, text: str) -> list[str]:
    faults = []
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        faults.append(f"{path}: {lines} lines, at most {FILE_LINES_MAX}: split it by purpose")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = function_lines(node)
            if length > FUNCTION_LINES_MAX:
                faults.append(
                    f"{path}:{node.lineno}: {node.name} has {length} lines without its docstring, at most {FUNCTION_LINES_MAX}"
                )
    return faults


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def faults_of_rooms(path: PurePosixPath, text: str) -> list[str]:
    """Rooms of replica meet in member (and in client, on a node's side) alone; import-linter says it too, this names the line."""
    if path.parts[0] != "replica" or len(path.parts) < 3 or path.parts[1] in ("member", "client"):
        return []
    own = path.parts[1]
    reachable = (own, *SHARED_IN_REPLICA)
    found = [
        (line, name)
        for line, name in imports_of(text, path)
        if name.startswith("replica.") and name.split(".")[1] not in reachable
    ]
    return [
        f"{path}:{line}: room {own} imports {name}; state a port in your own file and let member connect it"
        for line, name in found
    ]


def imports_of(text: str, path: PurePosixPath) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.parts[: len(path.parts) - node.level]
                base = ".".join([*package, base]) if base else ".".join(package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def texts(applies: Callable[[PurePosixPath], bool]) -> Iterator[tuple[PurePosixPath, str]]:
    for path in tracked():
        if applies(path) and str(path) != "tests/unit/test_tidy.py":
            try:
                yield path, (ROOT / path).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # an image or another binary file


@pytest.mark.parametrize("name", RULES)
def test_nothing_banned_is_in_the_tree(name: str) -> None:
    rule = RULES[name]
    assert [fault for path, text in texts(rule.applies) for fault in faults_of_pattern(rule, path, text)] == []


@pytest.mark.parametrize("name", RULES)
def test_each_rule_bites(name: str) -> None:
    path, line = RULES[name].planted
    assert len(faults_of_pattern(RULES[name], PurePosixPath(path), f"first\n{line}\n")) == 1
    assert faults_of_pattern(RULES[name], PurePosixPath(path), "first\nsecond\n") == []


def test_clocks_and_chance_are_allowed_at_the_edges() -> None:
    for path in ("replica/feed/edge_push.py", "hosting/front/udp.py", "replica/member/main.py", "ops/cli/up.py"):
        assert faults_of_pattern(RULES["hidden clock"], PurePosixPath(path), "time.time()\n") == []
    assert faults_of_pattern(RULES["hidden chance"], PurePosixPath("replica/a.py"), "self.random.randbytes(2)\n") == []


def test_files_and_functions_fit_a_glance() -> None:
    assert [fault for path, text in texts(any_python) for fault in faults_of_size(path, text)] == []


def test_size_rule_bites() -> None:
    path = PurePosixPath("ops/a.py")
    long_function = "def f():\n" + '    """Doc.\n\n    Doc.\n    """\n' + "    a = 1\n" * FUNCTION_LINES_MAX
    assert faults_of_size(path, "a = 1\n" * (FILE_LINES_MAX + 1)) != []
    assert faults_of_size(path, long_function) == [
        f"ops/a.py:1: f has {FUNCTION_LINES_MAX + 1} lines without its docstring, at most {FUNCTION_LINES_MAX}"
    ]
    assert faults_of_size(path, long_function.replace("    a = 1\n", "", 1)) == []


def test_rooms_meet_in_member_alone() -> None:
    assert [fault for path, text in texts(any_python) for fault in faults_of_rooms(path, text)] == []


@pytest.mark.parametrize(
    ("path", "line", "faults"),
    [
        ("replica/feed/session.py", "from replica.store import engine", 1),
        ("replica/feed/session.py", "from replica import store", 1),
        ("replica/feed/session.py", "from ..store.engine import Store", 1),
        ("replica/feed/session.py", "import replica.takeover.machine", 1),
        ("replica/model/position.py", "from replica.feed import session", 1),
        ("replica/feed/session.py", "from replica.model import position", 0),
        ("replica/feed/session.py", "from . import edge_push", 0),
        ("replica/member/build.py", "from replica.store import engine", 0),
        ("replica/client/edge_agent.py", "from replica.feed import edge_pusher", 0),
    ],
)
def test_room_rule_bites(path: str, line: str, faults: int) -> None:
    assert len(faults_of_rooms(PurePosixPath(path), line + "\n")) == faults
