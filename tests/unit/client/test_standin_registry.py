"""The stand-in's reading of files, its prefix table and its control API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from chaos.standin.control import Control
from chaos.standin.edge_http import Request
from chaos.standin.forced import PrefixTable
from chaos.standin.registry import FileReader
from replica.agent.mapping import Naming
from replica.model.errors import ZaibeiError
from replica.model.handle.values import HandleValue

NAMING = Naming.of(("88.118.8",))


def line(handle: str, url: str) -> str:
    return json.dumps({"handle": handle, "values": [{"index": 1, "type": "URL", "data": url}]}) + "\n"


def test_files_are_read_as_the_agent_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    reader = FileReader(path, NAMING)
    path.write_text(line("88.118.8/a", "1") + "not json\n" + line("88.118.8/A", "2") + line("88.9/x", "3") + "\n")
    first = reader.read()
    assert len(first) == 1
    assert next(iter(first.values())).count(b"1") >= 1, "of a name given twice the first line counts"
    path.write_text(line("88.118.8/b", "4") + line("88.118.8/a", "1"))
    again = reader.read()
    assert again == FileReader(path, NAMING).read(), "remembered lines make no difference"
    assert len(again) == 2
    with pytest.raises(OSError):
        FileReader(tmp_path / "none.jsonl", NAMING).read()


def test_csv_files_hold_one_value_a_line(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("handle,index,type,data,ttl\n88.118.8/a,2,DESC,d,60\n88.118.8/a,1,URL,u,60\n88.118.8/b,x,URL,u,60\n")
    assert len(FileReader(path, NAMING).read()) == 1


VALUE = HandleValue(1, b"HS_SITE", b"parent's")


def test_kept_answers_end_with_their_ttl_and_forced_ones_follow() -> None:
    table = PrefixTable()
    table.keep("88.1", (VALUE,), 10, 0)
    table.force("88.1", (b"ours",), 5, "a")
    assert table.find("88.1", 9.9) == (VALUE,)
    found = table.find("88.1", 10.1)
    assert found is not None
    assert found[0].data == b"ours"
    table.remove("88.1", 6)
    assert table.find("88.1", 11) is None


def test_ttl_cap_and_flush() -> None:
    capped = PrefixTable(0)
    capped.keep("88.1", (VALUE,), 10, 0)
    assert capped.find("88.1", 0) is None
    table = PrefixTable(3)
    table.keep("88.1", (VALUE,), 10, 0)
    assert table.find("88.1", 3.1) is None
    table.keep("88.1", (VALUE,), 10, 4)
    assert (table.flush("88.2"), table.flush("88.1"), table.flush(None)) == (0, 1, 0)


def test_serials_never_go_down() -> None:
    table = PrefixTable()
    table.force("88.1", (b"a",), 5, "x")
    table.force("88.1", (b"a",), 5, "x")
    for call in (
        lambda: table.force("88.1", (b"b",), 5, "x"),
        lambda: table.force("88.1", (b"a",), 4, "x"),
        lambda: table.remove("88.1", 4),
    ):
        with pytest.raises(ZaibeiError):
            call()
    table.remove("88.1", 6)
    table.remove("88.1", 6)
    with pytest.raises(ZaibeiError):
        table.force("88.1", (b"a",), 6, "x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"prefix": 1}',
        b'{"prefix": "88.1", "serial": -1, "sites": ["00"]}',
        b'{"prefix": "88..1", "serial": 1}',
        b'{"prefix": "88.1", "serial": 1, "sites": []}',
        b'{"prefix": "88.1", "serial": 1, "sites": ["xy"]}',
        b'{"prefix": "88.1", "serial": true, "sites": ["00"]}',
        b"[" * 100_000,
    ],
    ids=lambda body: body[:40].decode(),
)
def test_the_control_api_refuses_nonsense(body: bytes) -> None:
    table = PrefixTable()
    control = Control(table, lambda: 0.0)
    status, answer = asyncio.run(control(Request("POST", "/control/hs-site", {}, {}, body)))
    assert status == 400
    assert json.loads(answer)["error"]
    assert table.forced == {}


def test_the_control_api_shows_everything() -> None:
    table = PrefixTable()
    table.force("88.1", (b"a",), 5, "x")
    status, answer = asyncio.run(Control(table, lambda: 0.0)(Request("GET", "/control/state", {})))
    assert (status, json.loads(answer)["serials"]) == (200, {"88.1": 5})
    assert asyncio.run(Control(table, lambda: 0.0)(Request("PUT", "/control/state", {})))[0] == 404
