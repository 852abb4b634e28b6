"""A Handle client: asks known servers, or walks from a prefix's published sites, one after another or hedged.

Hedged, the next site is asked after a short delay (at once on a refused connection or code 2) and the first right answer
wins, so that no lookup is lost while a node dies. When every site it knows has failed it asks anew which sites there are,
until its deadline: a takeover that is being published is then found by the very lookup that met the dead node.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from hosting.client.edge_http import HttpPool
from hosting.client.edge_tcp import TcpPool
from hosting.client.edge_udp import RETRY_S, UdpPool
from hosting.client.hedge import HEDGE_DELAY_S, first_of, one_after_another
from hosting.client.lookup import Attempt, Lookup, Question, Rc, Reply, Server, Turn
from hosting.client.sites import DELEGATE_TYPES, SITE_TYPES, Place, places_of, sites_in, ttl_of
from hosting.client.wire import REQUEST_ID_MAX, decode_reply, encode_question
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import RECURSION_MAX, TTL_S_MAX
from replica.model.handle.faults import CodecMisuse, ProtocolFault

PREFIXES_KEPT_MAX = 10_000
ASK_AGAIN_S = 0.05  # between rounds when every site failed
WEAK_WAIT_S = 0.5  # how long "not found" of a second site waits for the primary's word
ATTEMPTS_SHOWN_MAX = 64


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How a client asks.

    Args:
        servers: asked first: a recursive node, a root, or the one server in question.
        walk: these servers only say which sites a prefix has, the sites are asked for the record; else they are asked for it.
        protocols: in order of preference, of published interfaces.
        hedge: race the sites; False: one after another, as deployed resolvers do.
        deadline_s: of a whole lookup; 3 s is the standard client's patience.
        site_ttl_s_max: bound on keeping published sites; 0: ask every time.
    """

    servers: tuple[Server, ...]
    walk: bool = False
    protocols: tuple[str, ...] = ("udp", "tcp")
    hedge: bool = False
    hedge_delay_s: float = HEDGE_DELAY_S
    deadline_s: float = sum(RETRY_S)
    udp_retry_s: tuple[float, ...] = RETRY_S
    site_ttl_s_max: int = TTL_S_MAX


class NoAnswer(ZaibeiError):
    """Nobody could say. `reply`: the last "cannot say" (code 2) of a server that at least answered; None: none did."""

    def __init__(self, message: str, reply: Reply | None, attempts: tuple[Attempt, ...]) -> None:
        super().__init__(Code.UNREACHABLE, message, definite=False, retry=True)
        self.reply = reply
        self.attempts = attempts


@dataclass(slots=True)
class _Journey:
    """One lookup under way."""

    question: Question
    began: float
    attempts: list[Attempt] = field(default_factory=list)
    unsure: Reply | None = None

    def note(self, server: Server, started: float, outcome: str) -> None:
        if len(self.attempts) < ATTEMPTS_SHOWN_MAX:
            ms = tuple(round((at - self.began) * 1_000, 3) for at in (started, time.perf_counter()))
            self.attempts.append(Attempt(server, ms[0], ms[1], outcome))


@dataclass(frozen=True, slots=True)
class _Kept:
    reply: Reply
    until: float  # monotonic seconds


class HandleClient:
    """Keeps sockets, connections and sites between lookups; one per event loop. Close it when done."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._udp = UdpPool(config.udp_retry_s)
        self._tcp = TcpPool(config.deadline_s)
        self._http = HttpPool(config.deadline_s)
        self._sites: dict[str, _Kept] = {}

    async def __aenter__(self) -> HandleClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all sockets."""
        await asyncio.gather(self._udp.close(), self._tcp.close(), self._http.close())

    async def resolve(self, name: str, *, types: Sequence[str] = (), indexes: Sequence[int] = ()) -> Lookup:
        """Look an identifier up.

        Returns:
            The final answer, which may be a 100 or another code that ends a resolution.
        Raises:
            NoAnswer: until the deadline nobody could say.
            ZaibeiError(MALFORMED): the name cannot be asked for.
        """
        journey = _Journey(Question(name, tuple(indexes), tuple(types)), time.perf_counter())
        try:
            async with asyncio.timeout(self.config.deadline_s):
                while True:
                    try:
                        return await self._round(journey)
                    except ZaibeiError as exc:
                        if exc.code is Code.MALFORMED or not self.config.hedge:
                            raise self._no_answer(journey, exc) from exc
                    self._sites.pop(prefix_of(name), None)
                    await asyncio.sleep(ASK_AGAIN_S)
        except TimeoutError:
            raise self._no_answer(journey, None) from None

    async def ask(self, server: Server, question: Question) -> Reply:
        """One exchange with one server, whatever it answers.

        Raises:
            ZaibeiError(UNREACHABLE): no valid answer came. ZaibeiError(MALFORMED): the question cannot be asked.
        """
        try:
            return await self._ask(server, question)
        except (ValueError, OverflowError) as exc:  # a published site may name what is no address or port
            raise ZaibeiError(Code.UNREACHABLE, f"{str(server)!r} is no server: {exc}", definite=False) from exc

    async def _ask(self, server: Server, question: Question) -> Reply:
        if server.protocol == "http":
            return await self._http.ask(server, question)
        number = secrets.randbelow(REQUEST_ID_MAX) + 1
        try:
            request = encode_question(question, number)
        except (CodecMisuse, UnicodeEncodeError) as exc:
            raise ZaibeiError(Code.MALFORMED, f"cannot ask for that: {exc}") from exc
        pool = self._udp if server.protocol == "udp" else self._tcp
        octets = await pool.ask(server, request, number)
        try:
            return decode_reply(octets, request, int(time.time()))
        except ProtocolFault as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"{server}: {exc.detail}", definite=False, retry=True) from exc

    async def published(self, prefix: str) -> Reply:
        """The sites a prefix has, from the known servers; kept as long as their ttl says. Raises ZaibeiError(UNREACHABLE)."""
        return await self._published(prefix, _Journey(Question(prefix), time.perf_counter()))

    async def _published(self, prefix: str, journey: _Journey) -> Reply:
        kept = self._sites.get(prefix)
        if kept is not None and kept.until > time.monotonic():
            return kept.reply
        question = Question(f"0.NA/{prefix}", types=("HS_SITE", "HS_SITE.6", "HS_SERV"))
        reply, _ = await self._race(journey, question, self._known())
        ttl_s = ttl_of(reply.values, int(time.time()), self.config.site_ttl_s_max)
        if ttl_s and reply.code == Rc.SUCCESS:
            if len(self._sites) >= PREFIXES_KEPT_MAX:
                self._sites.pop(next(iter(self._sites)))
            self._sites[prefix] = _Kept(reply, time.monotonic() + ttl_s)
        return reply

    def _known(self) -> list[Place]:
        return [Place(server) for server in self.config.servers]

    async def _round(self, journey: _Journey) -> Lookup:
        question = journey.question
        places = self._known()
        if self.config.walk and not _at_root(question.name):
            published = await self._published(prefix_of(question.name), journey)
            if published.code != Rc.SUCCESS:
                return self._done(journey, published, self.config.servers[0], 0)
            places = await self._places(journey, published)
            if not places:
                raise ZaibeiError(Code.UNREACHABLE, f"no usable site is published for {prefix_of(question.name)}", retry=True)
        for hop in range(RECURSION_MAX + 1):
            reply, server = await self._race(journey, question, places)
            if reply.turn is not Turn.REFERRAL:
                return self._done(journey, reply, server, hop)
            places = await self._referred(journey, reply)
            if not places:
                return self._done(journey, reply, server, hop)  # a referral to nowhere: shown as it came
        raise ZaibeiError(Code.UNREACHABLE, f"more than {RECURSION_MAX} referrals", definite=False)

    async def _places(self, journey: _Journey, published: Reply) -> list[Place]:
        sites = sites_in(published.values)
        for value in published.values:
            if value.type.upper() == b"HS_SERV":
                sites += sites_in((await self._service(journey, value.data.decode("utf-8", "replace"))).values)
        return places_of(sites, journey.question.name.encode(), self.config.protocols)

    async def _service(self, journey: _Journey, name: str) -> Reply:
        """One indirection: a service handle that holds sites."""
        question = Question(name, types=("HS_SITE", "HS_SITE.6"))
        return (await self._race(journey, question, self._known()))[0]

    async def _referred(self, journey: _Journey, reply: Reply) -> list[Place]:
        kinds = DELEGATE_TYPES if reply.code == Rc.PREFIX_REFERRAL else SITE_TYPES
        sites = sites_in(reply.values, kinds) or sites_in(reply.values)
        if not sites and reply.message:
            sites = sites_in((await self._service(journey, reply.message)).values)
        return places_of(sites, journey.question.name.encode(), self.config.protocols)

    async def _race(self, journey: _Journey, question: Question, places: Sequence[Place]) -> tuple[Reply, Server]:
        attempts = [self._attempt(journey, question, place) for place in places]
        if not self.config.hedge:
            reply, place = await one_after_another(attempts)
        else:
            reply, place = await first_of(attempts, self.config.hedge_delay_s, weak=_weak, weak_wait_s=WEAK_WAIT_S)
        return reply, place.server

    def _attempt(self, journey: _Journey, question: Question, place: Place) -> Callable[[], Awaitable[tuple[Reply, Place]]]:
        async def attempt() -> tuple[Reply, Place]:
            started = time.perf_counter()
            try:
                reply = await self.ask(place.server, question)
            except ZaibeiError as exc:
                journey.note(place.server, started, exc.trouble.message)
                raise
            journey.note(place.server, started, f"code {reply.code}")
            if reply.turn is Turn.NEXT:
                journey.unsure = reply
                raise ZaibeiError(Code.UNREACHABLE, f"{place.server} cannot say: {reply.message}", definite=False, retry=True)
            return reply, place

        return attempt

    def _done(self, journey: _Journey, reply: Reply, server: Server, hops: int) -> Lookup:
        took_ms = round((time.perf_counter() - journey.began) * 1_000, 3)
        return Lookup(journey.question.name, reply, server, took_ms, hops, tuple(journey.attempts))

    def _no_answer(self, journey: _Journey, last: ZaibeiError | None) -> ZaibeiError:
        if last is not None and last.code is Code.MALFORMED:
            return last
        why = last.trouble.message if last is not None else f"nobody answered within {self.config.deadline_s} s"
        if journey.unsure is not None:
            why = f"no server can vouch for an answer: {journey.unsure.message or 'code 2'}"
        return NoAnswer(f"{journey.question.name}: {why}", journey.unsure, tuple(journey.attempts))


def _weak(result: tuple[Reply, Place]) -> bool:
    """A second site's "not found" may only mean that it has not heard yet: the primary's word is waited for a moment."""
    reply, place = result
    return reply.code in (Rc.NOT_FOUND, Rc.VALUES_NOT_FOUND) and not place.primary


def prefix_of(name: str) -> str:
    """The prefix that is asked for sites: of `88.118.8/x` it is 88.118.8; of a prefix's own record the parent's."""
    prefix, slash, suffix = name.partition("/")
    if not slash:
        prefix, suffix = "0.NA", name
    if prefix.upper() != "0.NA":
        return prefix
    return suffix.rpartition(".")[0] or "0.NA"


def _at_root(name: str) -> bool:
    """Records of prefixes and everything else under `0.` are asked for at the root, not at a prefix's sites."""
    return "/" not in name or name.startswith("0.")


def with_servers(config: ClientConfig, *servers: Server) -> ClientConfig:
    """The same client for other servers."""
    return replace(config, servers=servers)
