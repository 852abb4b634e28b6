"""All sources' takeovers of one member: what the admin API offers to `zaibei takeover`."""

from __future__ import annotations

from typing import Protocol

from replica.model.errors import Code, ZaibeiError
from replica.takeover.plan import Plan
from replica.takeover.readiness import Check

ACTIONS = ("takeover", "withdraw")


class Runner(Protocol):
    """One source's takeover (replica/takeover/edge_runner.py), as far as operators need it."""

    def plan(self, action: str) -> Plan: ...

    async def run_plan(self, action: str, token: str, reason: str) -> dict[str, object]: ...

    async def rehearse(self) -> Check: ...

    def status(self, now_ns: int) -> dict[str, object]: ...


class TakeoverService:
    """By source name. Composition adds a runner when a source is set up."""

    def __init__(self) -> None:
        self.runners: dict[str, Runner] = {}

    def status(self, now_ns: int, source: str = "") -> list[dict[str, object]]:
        """One row a source, by name; one source when named. Raises ZaibeiError(NOT_FOUND)."""
        names = [source] if source else sorted(self.runners)
        return [self._runner(name).status(now_ns) for name in names]

    def plan(self, source: str, action: str) -> dict[str, object]:
        """Look, change nothing. Raises ZaibeiError(NOT_FOUND, MALFORMED)."""
        return self._runner(source).plan(_known(action)).view()

    async def run(self, source: str, action: str, token: str, reason: str) -> dict[str, object]:
        """Run a plan that still holds. Raises ZaibeiError(NOT_FOUND, REFUSED, UNKNOWN)."""
        return await self._runner(source).run_plan(_known(action), token, reason)

    async def rehearse(self, source: str) -> dict[str, object]:
        """Publish and withdraw a shadow prefix. Raises ZaibeiError(NOT_FOUND, REFUSED)."""
        return (await self._runner(source).rehearse()).view()

    def _runner(self, source: str) -> Runner:
        runner = self.runners.get(source)
        if runner is None:
            raise ZaibeiError(Code.NOT_FOUND, f"no source {source!r} here; there are {', '.join(sorted(self.runners)) or 'none'}")
        return runner


def _known(action: str) -> str:
    if action not in ACTIONS:
        raise ZaibeiError(Code.MALFORMED, f"{action!r} is not an act: {' or '.join(ACTIONS)}")
    return action
