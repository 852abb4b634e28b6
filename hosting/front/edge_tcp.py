"""Handle over TCP: connections kept open for ever, pipelined, answered out of order by request id."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from hosting.answer.question import Answer, Question
from hosting.answer.standing import NO_SUCH_NAME, TRY_ANOTHER, Standing
from hosting.front.connections import Connections
from hosting.front.edge_stream import StreamConnection
from hosting.front.exchange import Registering
from hosting.front.service import TOO_BUSY, FrontService
from replica.model.handle.answers import Peeked
from replica.model.handle.stream import Deframer

_TOO_MANY: Final = Answer(TRY_ANOTHER, b"too many questions from your network; ask another site")


class TcpConnection(StreamConnection):
    """One peer. After octets that are no envelope nothing can be told apart any more, and the connection is closed."""

    def __init__(self, service: FrontService, connections: Connections) -> None:
        super().__init__(connections, service.guard)
        self._service = service
        self._deframer = Deframer()
        self._backlog: deque[bytes] = deque()
        self._expires = 0
        self._ended = self._working = False

    def eof_received(self) -> bool:
        self._ended = True
        return bool(self.in_flight or self._backlog)  # answer what is under way, then close

    def data_received(self, data: bytes) -> None:
        messages = self._deframer.feed(data)
        if messages:
            self.finished_one()
            taken = self.within(len(messages))
            if taken < len(messages):
                messages = messages[:taken] + self._over(messages[taken:])
            self._backlog.extend(messages)
            self._work()
        if self._deframer.fault is not None:
            self.connections.cut("malformed", self)
            return
        self.heard(partial=self._deframer.octets_held > 0)

    def _over(self, messages: list[bytes]) -> list[bytes]:
        """Answer questions beyond the limit at once; what is no question goes on: it has limits of its own."""
        others = []
        for message in messages:
            taken = self._service.exchange.take(message)
            if isinstance(taken, tuple) and isinstance(taken[0], Peeked) and taken[1] is not None:
                self.outbox.append(self._service.exchange.answer(taken[0], taken[1], _TOO_MANY, self._service.expires()))
            else:
                others.append(message)
        return others

    def _work(self) -> None:
        """Take messages while not too many are under way; `finish` comes back for the rest."""
        if self._working:  # an answer given at once, by way of `finish`: a deep stack would end whoever's turn this is
            return
        self._working = True
        try:
            self._take_on()
        finally:
            self._working = False

    def _take_on(self) -> None:
        backlog, most = self._backlog, self.connections.limits.in_flight_max
        take, ask = self._service.exchange.take, self._service.batcher.ask
        while backlog and self.in_flight < most and self.stalled_since_s is None:
            taken = take(backlog.popleft())
            if taken is None:
                self.connections.cut("malformed", self)
                return
            if isinstance(taken, bytes):
                self.outbox.append(taken)
                continue
            echo, question = taken
            self.in_flight += 1
            if question is None:
                if isinstance(echo, Registering):
                    self._service.register(self, None, echo, self._client())
                else:
                    self._service.ask_views(self, echo)
            elif not ask(self, echo, question):
                self.answered(echo, question, TOO_BUSY)
        if self.outbox:
            self.send_out()
        else:
            self.throttle()

    def answered(self, context: Any, question: Question, answer: Answer) -> None:
        self.in_flight -= 1
        if answer.code == NO_SUCH_NAME and self.client:
            self.guard.missed(self.client, 1)
        if not self._expires:
            self._expires = self._service.expires()
        self.outbox.append(self._service.exchange.answer(context, question, answer, self._expires))

    def finish(self) -> None:
        self._expires = 0
        self.send_out()
        if self._backlog and self.transport is not None:
            self._work()
        if self._ended and not self.in_flight and not self._backlog and self.transport is not None:
            self.transport.close()

    def views_read(self, context: Any, standings: list[Standing], trouble: str) -> None:
        self.in_flight -= 1
        self.outbox.append(self._service.site_message(context, standings, trouble))
        self.finish()

    def registered(self, context: Any, answers: list[bytes]) -> None:
        self.in_flight -= 1
        self.outbox.extend(answers)
        self.finish()

    def _client(self) -> str:
        name = self.transport.get_extra_info("peername") if self.transport is not None else None
        return str(name[0]) if name else ""

    def resume_writing(self) -> None:
        super().resume_writing()
        self._work()


async def listen_tcp(service: FrontService, connections: Connections, host: str, port: int, reuse_port: bool) -> asyncio.Server:
    """Raises OSError: the address cannot be bound."""
    return await asyncio.get_running_loop().create_server(
        lambda: TcpConnection(service, connections), host, port, reuse_port=reuse_port, backlog=1_024
    )
