"""Manifests from elsewhere: only what we would have written ourselves is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from replica.model.errors import Code, ZaibeiError
from replica.model.transfer import FILES_MAX, MANIFEST_OCTETS_MAX, TransferKind, check_name, open_manifest
from replica.transfer.memory import describe
from replica.transfer.ports import Wanted
from tests.unit.transfer.support import GROUP, SOURCE, WANTED, some_files

SOUND = describe(some_files(), SOURCE, index=9)


def test_there_and_back() -> None:
    assert open_manifest(SOUND.encode(), SOUND.sha256) == SOUND
    assert [line.name for line in SOUND.files] == sorted(some_files())
    assert SOUND.octets == sum(map(len, some_files().values()))


TRICKS = (
    "", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", ".hidden", "a\0b", "a\nb", "ä", "x" * 101, "TRANSFER",
    "0" * 64 + ".part", "a b", "CON:", "%2e%2e", "a\n",
)  # fmt: skip
NONE = (b"", b"{}", b"null", SOUND.encode()[:-1], SOUND.encode() + b" ", b" " + SOUND.encode(), b"\xff\xfe")


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_in_names(name: str) -> None:
    with pytest.raises(ZaibeiError) as refused:
        check_name(name)
    assert refused.value.code is Code.MALFORMED
    lied = json.loads(SOUND.encode())
    lied["files"][0]["name"] = name
    lied["files"].sort(key=lambda line: line["name"])
    with pytest.raises(ZaibeiError):
        open_manifest(json.dumps(lied, separators=(",", ":"), ensure_ascii=False).encode())


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(made: dict[str, Any]) -> None:
        at: Any = made
        *steps, last = path.split(".")
        for step in steps:
            at = at[int(step)] if step.isdecimal() else at[step]
        at[last] = value

    return change


def twice(made: dict[str, Any]) -> None:
    made["files"].append(made["files"][-1])


def reverse(made: dict[str, Any]) -> None:
    made["files"].reverse()


BAD: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": put("format", 2),
    "another kind": put("kind", "archive"),
    "a field too many": put("more", 1),
    "a field missing": lambda made: made.pop("term"),
    "a negative index": put("index", -1),
    "a negative length": put("files.0.octets", -1),
    "a length without end": put("files.0.octets", 1 << 50),
    "no hash": put("files.0.sha256", ""),
    "a hash in capitals": put("files.0.sha256", "A" * 64),
    "a file twice": twice,
    "files out of order": reverse,
    "no files": put("files", []),
    "a sum that is none": put("total", "-1"),
    "a position that is none": put("position", "here"),
    "a text for a number": put("index", "9"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_we_would_not_have_written(what: str) -> None:
    made = json.loads(SOUND.encode())
    BAD[what](made)
    with pytest.raises(ZaibeiError) as refused:
        open_manifest(json.dumps(made, separators=(",", ":")).encode())
    assert refused.value.code is Code.MALFORMED


@pytest.mark.parametrize("octets", NONE)
def test_octets_that_are_none(octets: bytes) -> None:
    with pytest.raises(ZaibeiError) as refused:
        open_manifest(octets)
    assert refused.value.code is Code.MALFORMED


def test_another_hash_and_too_many_octets() -> None:
    with pytest.raises(ZaibeiError):
        open_manifest(SOUND.encode(), b"\0" * 32)
    with pytest.raises(ZaibeiError):
        open_manifest(b"x" * (MANIFEST_OCTETS_MAX + 1))
    with pytest.raises(ZaibeiError):
        describe({f"{number}.sst": b"" for number in range(FILES_MAX + 1)}, SOURCE)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (WANTED, True),
        (replace(WANTED, index_min=9), True),
        (replace(WANTED, index_min=10), False),
        (replace(WANTED, source="86.1000"), False),
        (Wanted(GROUP, SOURCE, TransferKind.GENERATION, number=0, begun=0), False),
    ],
)
def test_what_was_asked_for(wanted: Wanted, fits: bool) -> None:
    assert (wanted.mismatch(SOUND) == "") is fits


def test_a_generation_is_named_by_its_load_too() -> None:
    made = describe(some_files(), SOURCE, generation=3, begun=40)
    asked = Wanted(GROUP, SOURCE, TransferKind.GENERATION, number=3, begun=40)
    assert asked.mismatch(made) == ""
    assert replace(asked, begun=41).mismatch(made) and replace(asked, number=2).mismatch(made)
    assert WANTED.mismatch(made)
