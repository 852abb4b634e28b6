"""A member stops to its end, whatever others make it change meanwhile."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from replica.member.member import Member


class Copy:
    """One of a member's copies; while it does `at`, the other one is taken out, as a member that asks for its reseed does."""

    def __init__(self, copies: dict[str, Any], at: str, done: list[str]) -> None:
        self._copies, self._at, self._done = copies, at, done
        self.driver = SimpleNamespace(stop=self._feed_stopped)

    async def _feed_stopped(self) -> None:
        self._do("feed")

    async def stop(self) -> None:
        self._do("log")

    def close(self) -> None:
        self._do("store")

    def _do(self, what: str) -> None:
        self._done.append(what)
        if what == self._at:
            self._copies.pop("node-b", None)


@pytest.mark.parametrize("at", ["feed", "log", "store"])
async def test_a_source_that_is_taken_out_meanwhile_ends_no_stop(at: str) -> None:
    """Else the journal and the thread that applies would be left open, and the process would not end."""
    member, done = Member.__new__(Member), list[str]()
    member.life = member._observer = member._returner = member._looker = member.scrubs = member._feed = None
    member._pullers, member._beats, member.copies = {}, [], {}
    member._watching = contextlib.ExitStack()
    member._apply = SimpleNamespace(stop=lambda: done.append("applying"))  # type: ignore[assignment]
    member._journal = SimpleNamespace(close=lambda: done.append("journal"))  # type: ignore[assignment]
    copies: dict[str, Any] = member.copies
    for name in ("node-a", "node-b"):
        copies[name] = Copy(copies, at, done)
    await member.stop()
    assert done[-1] == "journal" and "applying" in done
