"""Hands an operator's command on to the member that can carry it out, over the members' own links; ops/admin/ways.py says which.

A command is handed on once: who gets it from another member answers it, or says why not. The other member's signatures, plans and
refusals are its own; this member adds nothing but who could not be reached.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from ops.admin.calls import CALLS
from ops.admin.codec import decode_answer, decode_request, encode_error, encode_request, encode_result
from ops.admin.ways import Way, most_telling, outcomes_joined, rows_joined, source_of, way_of
from replica.model.errors import Code, Trouble, ZaibeiError

MARGIN_S = 3.0  # the other member ends so much earlier than we do, so that its own words arrive
LOOK_S_MAX = 4.0  # for rows and plans of other members: ours are shown without them
AGAIN_S = 0.5  # before a source whose leader is just changing is looked at again
CHANGE_S_MAX = 6.0  # so long a change of leader is waited for
ANSWER_OCTETS_MAX = 3 * 1024 * 1024  # of an answer between members

CHANGING = frozenset({Code.NOT_LEADER, Code.UNREACHABLE, Code.REFUSED})  # beside `retry`: it was not the leader, or is gone

log = logging.getLogger("zaibei.admin")
Serve = Callable[[str, dict[str, Any]], Awaitable[Any]]
Params = dict[str, Any]


class Others(Protocol):
    """The other members, as far as commands need them; ops/cluster/edge_others.py."""

    @property
    def name(self) -> str:
        """Of this member."""
        ...

    def connected(self) -> list[str]:
        """Names of the other members that are reached now."""
        ...

    def missing(self) -> list[str]:
        """Names of the members that belong to the cluster and are not reached now."""
        ...

    def leaders(self) -> Mapping[str, str]:
        """Source -> name of the member that leads it, as far as known; this one's included."""
        ...

    async def ask(self, member: str, line: bytes, limit_s: float) -> bytes:
        """One line of the admin channel there, and its answer. Raises ZaibeiError(UNREACHABLE, UNKNOWN, NOT_AUTHORISED)."""
        ...


class Handing:
    """See the module.

    Args:
        serve: answers a call at this member. Raises ZaibeiError.
    """

    def __init__(self, others: Others, serve: Serve) -> None:
        self._others, self._serve = others, serve

    async def call(self, name: str, params: Params) -> Any:
        """Answer an operator of this member. Raises ZaibeiError."""
        match way_of(name):
            case Way.LEADER:
                return await self._at_leader(name, params)
            case Way.PLAN:
                return await self._plan(name, params)
            case Way.ROWS:
                return await self._rows(name, params)
            case Way.TOKEN:
                return await self._where_known(name, params)
            case Way.MASS_PLAN:
                return await self._mass_plan(name, params)
            case Way.MASS_RUN:
                return await self._mass_run(name, params)
            case _:
                return await self._serve(name, params)

    async def handed(self, asker: str, line: bytes) -> bytes:
        """Answer a line that another member hands on; never further on from here."""
        ident = 0
        try:
            request = decode_request(line)
            ident = request.ident
            if way_of(request.call) is Way.HERE:
                raise ZaibeiError(Code.REFUSED, f"{request.call} is not for other members to ask: give it at this member")
            if CALLS[request.call].changes:
                log.info("operator call of another member", extra={"fields": {"call": request.call, "member": asker}})
            answer = encode_result(ident, await self._serve(request.call, dict(request.params)))
        except ZaibeiError as exc:
            return encode_error(ident, exc.trouble)
        if len(answer) <= ANSWER_OCTETS_MAX:
            return answer
        where = f"the answer has {len(answer)} octets, over {ANSWER_OCTETS_MAX} between members. Next: the same command there"
        return encode_error(ident, Trouble(Code.MALFORMED, f"{self._others.name}: {where}"))

    # -- one member

    async def _at_leader(self, name: str, params: Params) -> Any:
        """Where it was not done for certain, whoever leads next is asked, for a while: a leader may just be changing."""
        source = source_of(name, params) or await self._holder(params)
        tries = int(CHANGE_S_MAX / AGAIN_S)
        for left in reversed(range(tries)):
            leader = self._others.leaders().get(source, self._others.name)
            try:
                return await (self._serve(name, params) if leader == self._others.name else self._ask(leader, name, params))
            except ZaibeiError as exc:
                if not (exc.trouble.definite and exc.trouble.retry and exc.code in CHANGING and left):
                    raise
            await asyncio.sleep(AGAIN_S)
        raise AssertionError("the last try returns or raises")

    async def _holder(self, params: Params) -> str:
        """The source of something held that was named by its number alone; empty: not known, or of several."""
        found = [] if "hold" not in params else await self._serve("holds", {"source": ""})
        sources = {one.source for one in found if one.hold == params["hold"]}
        return sources.pop() if len(sources) == 1 else ""

    async def _ask(self, member: str, name: str, params: Params, limit_s: float = 0.0) -> Any:
        limit_s = limit_s or CALLS[name].timeout_s - MARGIN_S
        log.info("handed on", extra={"fields": {"call": name, "to": member}})
        try:
            answer = await self._others.ask(member, encode_request(1, name, params), limit_s)
        except ZaibeiError as exc:
            trouble = exc.trouble
            done = trouble.definite or not CALLS[name].changes
            raise ZaibeiError(
                trouble.code if trouble.definite else Code.UNKNOWN if not done else Code.UNREACHABLE,
                f"{member} was to carry this out, and gave no answer: {trouble.message}. "
                + ("Nothing was done" if done else "Whether it was done is not known")
                + f". Next: zaibei cluster status; then the same command again, here or at {member}",
                definite=done,
                retry=True,
            ) from exc
        return decode_answer(answer, 1, name)

    # -- several

    async def _everywhere(self, name: str, params: Params, limit_s: float = 0.0) -> tuple[dict[str, Any], dict[str, ZaibeiError]]:
        """This member and all others that are reached: answers and troubles by name, this member's first."""

        async def one(member: str) -> Any:
            try:
                own = member == self._others.name
                return await (self._serve(name, dict(params)) if own else self._ask(member, name, params, limit_s))
            except ZaibeiError as exc:
                return exc

        names = [self._others.name, *self._others.connected()]
        told = dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))
        troubles = {member: got for member, got in told.items() if isinstance(got, ZaibeiError)}
        return {member: got for member, got in told.items() if member not in troubles}, troubles

    async def _rows(self, name: str, params: Params) -> Any:
        if source_of(name, params):
            try:
                return await self._at_leader(name, params)
            except ZaibeiError as exc:
                if exc.code is not Code.UNREACHABLE:
                    raise
            return await self._serve(name, params)  # what is seen from here is better than nothing
        own = await self._serve(name, params)
        leaders = self._others.leaders()
        wanted = (set(leaders.values()) & set(self._others.connected())) - {self._others.name}
        if not wanted:
            return own

        async def one(member: str) -> Any:
            try:
                return await self._ask(member, name, params, LOOK_S_MAX)
            except ZaibeiError as exc:
                log.info("rows not told", extra={"fields": {"member": member, "why": str(exc)}})
                return None

        asked = sorted(wanted)
        told = dict(zip(asked, await asyncio.gather(*map(one, asked)), strict=True))
        return rows_joined(own, {member: rows for member, rows in told.items() if rows is not None}, leaders)

    async def _where_known(self, name: str, params: Params) -> Any:
        answers, troubles = await self._everywhere(name, params)
        if answers:
            return next(iter(answers.values()))
        told = most_telling(list(troubles.values()))
        missing = ", ".join(self._others.missing())
        if told.code is Code.NOT_FOUND and missing:
            raise ZaibeiError(
                Code.NOT_FOUND, f"{told.trouble.message}. Not asked, since not reached: {missing}", retry=True
            ) from told
        raise told

    async def _plan(self, name: str, params: Params) -> Any:
        """The leader's. The same state makes the same token elsewhere; who sees another state or is not reached does without."""
        row = await self._at_leader(name, params)
        await self._everywhere(name, params, LOOK_S_MAX)
        return row

    async def _mass_plan(self, name: str, params: Params) -> Any:
        row = await self._serve(name, params)
        names = [one["source"] for one in row["sources"] if one["takes"]]
        told = {**params, "names": names, "only_dead": False}
        answers, _ = await self._everywhere(name, told, LOOK_S_MAX)
        led = self._others.leaders()
        sources = [
            _seen(one, answers.get(led.get(one["source"], ""), row), led.get(one["source"], ""), row["token"])
            for one in row["sources"]
        ]
        return {**row, "sources": sources}

    async def _mass_run(self, name: str, params: Params) -> Any:
        answers, troubles = await self._everywhere(name, params)
        if not answers:
            raise most_telling(list(troubles.values()))
        led = self._others.leaders()
        joined = outcomes_joined(answers, led)
        for row in joined["sources"]:
            trouble = troubles.get(led.get(row["source"], ""))
            if row["outcome"] == "refused" and trouble is not None:
                row["why"] = f"{led[row['source']]}, which leads it: {trouble.trouble.message}"
                row["outcome"] = "refused" if trouble.trouble.definite else "unknown"
        counts = {word: sum(row["outcome"] == word for row in joined["sources"]) for word in ("refused", "unknown")}
        return {**joined, **counts}


def _seen(one: Mapping[str, Any], told: Any, leader: str, token: str) -> Mapping[str, Any]:
    """A source of a mass plan as its leader sees it; ours where that one was not heard, or makes another plan of it."""
    if told["token"] != token:
        return {**one, "why_not": one["why_not"] or f"{leader}, which leads it, is not where this member is: plan again"}
    return next((row for row in told["sources"] if row["source"] == one["source"]), one)
