"""What all listeners of a front share: the batcher, the Handle exchange, and the rare questions that need every source's view."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

from hosting.answer.port import AnswerPort
from hosting.answer.question import Answer
from hosting.answer.sites import site_with_freshness
from hosting.answer.standing import NO_SUCH_NAME, TRY_ANOTHER, Standing, no_standing, standing_of
from hosting.front.batcher import Batcher
from hosting.front.edge_certify import Certifier, Waiter
from hosting.front.edge_site_key import SiteKey
from hosting.front.exchange import Exchange, Registering, SiteAsked
from hosting.front.pause import PauseWatch
from hosting.guard.clients import client_of
from hosting.guard.guard import Guard
from hosting.handle.edge_json import JsonSaid
from hosting.handle.edge_registrar import Registrar
from hosting.handle.json_asks import JsonAsked
from hosting.tenant.limits import REGISTRATIONS_MAX
from replica.model.errors import ZaibeiError
from replica.model.handle.answers import Peeked
from replica.model.handle.codes import EXPIRATION_S

VIEW_CALLS_MAX: Final = 64
TOO_BUSY: Final = Answer(TRY_ANOTHER, b"this member cannot answer in time; ask another site")


class ViewSink(Protocol):
    """Whoever asked for the views of all sources."""

    def views_read(self, context: Any, standings: list[Standing], trouble: str) -> None:
        """`trouble`: why nothing could be read, empty when all went well."""
        ...


class RegistrationSink(Protocol):
    """Whoever took a message that registers."""

    def registered(self, context: Any, answers: list[bytes]) -> None:
        """`answers`: whole messages; none: silence, or too much is under way."""
        ...


class JsonSink(Protocol):
    """Whoever took a request of the JSON API that registers."""

    def json_said(self, context: Any, said: JsonSaid | None) -> None:
        """None: too much is under way."""
        ...


class FrontService:
    """See the module.

    Args:
        port: whoever owns the stores.
        wall_clock: Unix seconds, for the expiration time of answers.
        guard: who is answered at all.
        site_key: of this site, for answers that are to be signed; None: it has none.
        registrar: who answers messages that register; None: no source lives here, or not yet.
    """

    def __init__(
        self,
        port: AnswerPort,
        *,
        watch: PauseWatch | None = None,
        waiting_max: int = 20_000,
        wall_clock: Callable[[], float] = time.time,
        registrar: Callable[[], Registrar | None] = lambda: None,
        guard: Guard | None = None,
        site_key: SiteKey | None = None,
    ) -> None:
        self.port = port
        self.exchange = Exchange(self.expires, lambda: registrar() is not None)
        self._registrar = registrar
        self._registrations: set[asyncio.Task[None]] = set()
        self.watch = watch or PauseWatch()
        self.guard = guard or Guard()
        self.batcher = Batcher(port, self.watch.paused, waiting_max=waiting_max, wall_clock=wall_clock, guard=self.guard)
        self.certifier = Certifier(site_key, self.expires, self.guard, lambda: self.batcher.crowded)
        self._wall_clock = wall_clock
        self._view_calls: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Give up what is under way."""
        self.batcher.close()
        self.certifier.close()
        for call in (*self._view_calls, *self._registrations):
            call.cancel()

    def register(self, sink: RegistrationSink, context: Any, asked: Registering, client: str, *, datagram: bool = False) -> None:
        """Have a message answered; `sink.registered` is called later, or at once.

        Args:
            client: its address without the port. `datagram`: that may be forged.
        """
        registrar = self._registrar()
        if asked.certify:
            begun = self.certifier.begin(asked.octets, client, datagram, registrar, self.now_ms())
            if isinstance(begun, list):
                sink.registered(context, begun)
                return
            if begun.signs or len(self._registrations) < REGISTRATIONS_MAX:
                work = partial(self._unsigned, asked.octets, client, datagram)
                self._begin(_told(sink, context, partial(self.certifier.answers, begun, work)))
                return
        elif registrar is not None and len(self._registrations) < REGISTRATIONS_MAX:
            self._begin(_told(sink, context, partial(registrar.answer, asked.octets, client, datagram=datagram)))
            return
        sink.registered(context, [])

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        call = asyncio.get_running_loop().create_task(work)
        self._registrations.add(call)
        call.add_done_callback(self._registrations.discard)

    async def _unsigned(self, octets: bytes, client: str, datagram: bool) -> list[bytes]:
        """The messages that answer one message, as they are without CT."""
        taken = self.exchange.take(octets, certified=True)
        if taken is None or isinstance(taken, bytes):
            return [] if taken is None else [taken]
        echo, question = taken
        waiter = Waiter()
        if question is not None and isinstance(echo, Peeked):
            if not self.batcher.ask(waiter, None, question):
                return [self.exchange.answer(echo, question, TOO_BUSY, self.expires())]
            answer = await waiter.answer
            network = client_of(client)
            if answer.code == NO_SUCH_NAME and network and not self.guard.trusts(client):
                self.guard.missed(network, 1)
            return [self.exchange.answer(echo, question, answer, self.expires())]
        if isinstance(echo, SiteAsked):
            self.ask_views(waiter, None)
            return [self.site_message(echo, *await waiter.views)]
        registrar = self._registrar()
        return [] if registrar is None else await registrar.answer(octets, client, datagram=datagram)

    def ask_json(self, sink: JsonSink, context: Any, asked: JsonAsked) -> bool:
        """Have a request of the JSON API answered; `sink.json_said` is called later, or at once. False: no source lives here."""
        registrar = self._registrar()
        if registrar is None:
            return False
        if len(self._registrations) >= REGISTRATIONS_MAX:
            sink.json_said(context, None)
            return True
        call = asyncio.get_running_loop().create_task(_ask_json(registrar, sink, context, asked))
        self._registrations.add(call)
        call.add_done_callback(self._registrations.discard)
        return True

    def expires(self) -> int:
        """Expiration time of an answer made now."""
        return int(self._wall_clock()) + EXPIRATION_S

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return int(self._wall_clock() * 1_000)

    def ask_views(self, sink: ViewSink, context: Any) -> None:
        """Read the view of every source; `sink.views_read` is called with them, later or at once."""
        if len(self._view_calls) >= VIEW_CALLS_MAX:
            sink.views_read(context, [], "too much is waiting here; ask another site")
            return
        call = asyncio.get_running_loop().create_task(self._read_views(sink, context))
        self._view_calls.add(call)
        call.add_done_callback(self._view_calls.discard)

    async def _read_views(self, sink: ViewSink, context: Any) -> None:
        try:
            sources = sorted({owner.source for _, owner in self.port.catalog().owners.items()})
            found = await self.port.get_many(dict.fromkeys(sources, ()))
        except ZaibeiError as exc:
            sink.views_read(context, [], f"{exc.trouble.message}; ask another site")
            return
        standings = [
            standing_of(found[source][1]) if source in found else no_standing(f"{source}: not held here") for source in sources
        ]
        sink.views_read(context, standings, "")

    def own_site(self, standings: list[Standing]) -> bytes:
        """This cluster's HS_SITE with an attribute for each source's freshness; empty when it has none."""
        try:
            site = self.port.catalog().own_site
        except ZaibeiError:
            return b""
        return site_with_freshness(site, [standing for standing in standings if standing.view is not None]) if site else b""

    def site_message(self, echo: SiteAsked, standings: list[Standing], trouble: str) -> bytes:
        """The answer to GET_SITE_INFO as a whole Handle message."""
        site = b"" if trouble else self.own_site(standings)
        return self.exchange.site(echo, site, trouble or "this member has no site of its own")


async def _told(sink: RegistrationSink, context: Any, work: Callable[[], Awaitable[list[bytes]]]) -> None:
    answers: list[bytes] = []
    try:
        answers = await work()
    finally:  # whatever went wrong, the place of the request is given back
        sink.registered(context, answers)


async def _ask_json(registrar: Registrar, sink: JsonSink, context: Any, asked: JsonAsked) -> None:
    said: JsonSaid | None = None
    try:
        said = await registrar.json.answer(asked)
    finally:
        sink.json_said(context, said)
