"""How an adapter's answer is told: a failure once, though it is tried again many times a second; a success with its time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from replica.model.errors import Code, ZaibeiError
from replica.takeover import edge_asked
from replica.takeover.edge_asked import standing_after
from replica.takeover.publish import Confirmation, Publication, Standing

WHAT = Publication("88.1.1", (b"site",), 3, "act")


class Adapter:
    name = "top"

    def __init__(self, *answers: Confirmation | ZaibeiError) -> None:
        self._answers = list(answers)

    async def publish(self, publication: Publication) -> Confirmation:
        answer = self._answers.pop(0)
        if isinstance(answer, ZaibeiError):
            raise answer
        return answer


async def test_a_failure_is_told_where_it_begins_or_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zaibei.takeover")
    gone = ZaibeiError(Code.UNREACHABLE, "top: connection refused", retry=True)
    adapter = Adapter(gone, gone, Confirmation(False, "not as we wrote it"), Confirmation(True, "named first"))
    standing, failures = Standing(), []
    for _ in range(4):
        standing = await standing_after(adapter, WHAT, standing)
        failures.append(standing.failures)
    assert failures == [1, 2, 3, 0]
    assert standing.meets(WHAT)
    told = [(record.levelname, record.__dict__["detail"]) for record in caplog.records]
    assert told == [("WARNING", "top: connection refused"), ("WARNING", "not as we wrote it"), ("INFO", "named first")]
    assert all(record.__dict__["took_ms"] >= 0 for record in caplog.records)


async def test_an_adapter_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_asked, "PUBLISH_S_MAX", 0.01)

    class Silent:
        name = "top"

        async def publish(self, publication: Publication) -> Confirmation:
            await asyncio.sleep(10)
            raise AssertionError

    standing = await standing_after(Silent(), WHAT, Standing())
    assert (standing.confirmed, standing.failures, standing.detail) == (False, 1, "top did not answer in 0.01 s")
