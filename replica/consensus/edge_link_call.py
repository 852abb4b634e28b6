"""Our call to one member: made again and again, Hello first in both directions, then beats, tables and messages.

phase     meaning                                              next
PAUSING   a call ended or failed: bounded back-off, or a poke  CALLING
CALLING   connecting, proving who answers, exchanging Hellos   STANDS, PAUSING
STANDS    messages leave; beats are answered                   PAUSING
"""

from __future__ import annotations

import asyncio
import logging
import time
from enum import StrEnum
from random import Random
from typing import Any

import grpc

from replica.consensus.edge_link_tls import LINK_PATH, Call, open_channel
from replica.consensus.edge_link_writer import Writer
from replica.consensus.link_book import LinkBook, OwnHello
from replica.consensus.link_checks import read_link_message
from replica.consensus.link_frames import Outbox, Slot
from replica.consensus.link_port import LinkKeys, LinkLimits, MemberTrust, Place, Reason, Refused
from replica.consensus.link_watch import BeatWatch, backoff_ms, hello_ms
from replica.model.errors import ZaibeiError
from replica.v1 import peer_pb2

LOGGER = logging.getLogger("zaibei.consensus.link")
LASTED_MS = 1_000  # a call that stood so long was no failure
STATUS_S_MAX = 1.0  # until a call that failed has its status
# What the other side says when it does not want us; calling at once again would not change its mind.
REFUSALS = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)

WAITING = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)


def boottime_ns() -> int:
    """Goes on while the machine sleeps: what is as old as a stamp of it is never older than that."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def now_ms() -> float:
    """A clock that never jumps, in milliseconds."""
    return time.monotonic() * 1_000


class Phase(StrEnum):
    """Where a call is; see the table above."""

    PAUSING = "pausing"
    CALLING = "calling"
    STANDS = "stands"


class Over(Exception):
    """The call is over. `refused`: because one side does not want the other."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


class MemberCall:
    """Keeps our call to one member, as long as `run` runs.

    Args:
        book: what is told to the ears, and by whom.
        own: our own Hello as it is now.
    """

    def __init__(
        self,
        member: int,
        place: Place,
        book: LinkBook,
        trust: MemberTrust,
        own: OwnHello,
        limits: LinkLimits,
        random: Random,
    ) -> None:
        self.member, self.place = member, place
        self._book, self._trust, self._own, self._limits, self._random = book, trust, own, limits, random
        self.phase = Phase.PAUSING
        self.boot = 0  # of the process that answers
        self.heard_ms: float | None = None  # when anything came on its own call
        self._turn = 0  # which address is called next
        self._slow = 0  # calls in a row that had no time for their Hello
        self._patience: asyncio.Timeout | None = None  # of the call that is under way
        self._called_ms = 0.0
        self._writer: Writer | None = None
        self._watch = BeatWatch(limits, now_ms())
        self._chain: tuple[bytes, ...] = ()
        self._ended: asyncio.Future[str] | None = None
        self._poked = asyncio.Event()
        self._refused = False
        self._told: Over | Refused | None = None
        self._keys: LinkKeys | None = None
        self._sent = self._sent_octets = self._dropped = 0
        self._counted_octets = 0
        self._asked = 0  # serial of the beat that left because messages wait; 0: none is on its way

    @property
    def stands(self) -> bool:
        return self.phase is Phase.STANDS

    # -- what waits to leave

    def send(self, message: bytes, group: int) -> bool:
        """Queue a serialized GroupMessage; False: it is dropped."""
        if self._writer is None or not self._writer.outbox.put(message, group):
            self._dropped += 1
            return False
        self._sent += 1
        self._sent_octets += len(message)
        self._writer.wake()
        return True

    def send_newest(self, slot: Slot, message: peer_pb2.LinkMessage) -> bool:
        """Queue what waits once; False: the call does not stand."""
        if self._writer is None:
            return False
        self._writer.outbox.put_newest(slot, message)
        self._writer.wake()
        return True

    # -- from outside

    def poke(self) -> None:
        """It is there again: call now, unless one side does not want the other. A call that hangs since before is given up."""
        if self.phase is Phase.PAUSING and not self._refused:
            self._poked.set()
        elif (
            self._patience is not None
            and not self._patience.expired()  # it is being given up already, and no longer to be moved
            and now_ms() - self._called_ms > self._limits.hello_ms_max
        ):
            self._patience.reschedule(asyncio.get_running_loop().time())

    def move(self, place: Place) -> None:
        """It is reached elsewhere from now on."""
        if place.addresses == self.place.addresses:
            self.place = place
            return
        self.place, self._turn, self._refused = place, 0, False
        self.end("it is reached elsewhere now")
        self.poke()

    def end(self, why: str) -> None:
        """End the call that stands; another one follows."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(why)

    def tick(self, at_ms: float, late_ms: float) -> None:
        """Once in beat_ms: is it silent? Then the next beat. `late_ms`: how much too late this look itself came."""
        self._count()
        writer = self._writer
        if writer is None:
            return
        self._watch.excuse(late_ms)
        if why := self._watch.silent(at_ms, self.heard_ms):
            self.end(why)
            return
        self._beat_now(writer, at_ms)
        writer.wake()

    def _beat_now(self, writer: Writer, at_ms: float) -> int:
        self._wrote(writer.written)
        serial = self._watch.beat(at_ms)
        beat = peer_pb2.LinkBeat(serial=serial, stamp_ns=boottime_ns())
        writer.outbox.put_newest(Slot.BEAT, peer_pb2.LinkMessage(beat=beat))
        return serial

    def _wrote(self, written: int) -> None:
        self._watch.wrote(written - self._counted_octets)
        self._counted_octets = written

    def _room(self, written: int) -> int:
        """So many octets of messages may leave now."""
        self._wrote(written)
        return self._watch.room()

    def _held(self) -> None:
        """Messages wait until more is known to have come: ask at once, not at the next beat."""
        if self._writer is not None and not self._asked:
            self._asked = self._beat_now(self._writer, now_ms())

    def prove(self) -> None:
        """Is the certificate that answers still a member's, and ours still the newest?"""
        if not self.stands:
            return
        if self._keys is None or self._trust.credentials().certificate_pem != self._keys.certificate_pem:
            self.end("our certificate was renewed")
            return
        try:
            self._trust.member_of(self._chain)
        except ZaibeiError as exc:
            self._book.refuse(self.member, Refused(Reason.CERTIFICATE, str(exc)))
            self._refused = True
            self.end(str(exc))

    def _count(self) -> None:
        if self._sent:
            self._book.metrics.sent(self.member, self._sent, self._sent_octets)
        if self._dropped:
            self._book.metrics.dropped(self.member, self._dropped)
        self._sent = self._sent_octets = self._dropped = 0

    # -- the life of the call

    async def run(self) -> None:
        """Until cancelled; a member that is down is normal."""
        failed = 0
        while True:
            began_ms = now_ms()
            self._poked.clear()
            try:
                await self._once()
            except (Over, Refused) as exc:
                if exc is not self._told:
                    self._over(exc)
                self._told = None
            finally:
                self.phase = Phase.PAUSING
            lasted = now_ms() - began_ms > LASTED_MS + self._limits.hello_ms_slow
            failed = 1 if lasted else failed + 1
            self._turn += 1
            await self._pause(backoff_ms(failed, self._random, self._limits))

    def _over(self, exc: Over | Refused) -> None:
        """Tell that the call is over."""
        self._told = exc
        if isinstance(exc, Over):
            self._refused = exc.refused
            self._book.ours_over(self.member, str(exc))
            return
        self._refused = True
        self._book.refuse(self.member, exc)
        self._book.ours_over(self.member, f"we refuse it: {exc}")

    async def _pause(self, pause_ms: float) -> None:
        try:
            async with asyncio.timeout(pause_ms / 1_000):
                await self._poked.wait()
        except TimeoutError:
            return

    async def _once(self) -> None:
        """One call, to its end. Raises Over or Refused."""
        addresses = self.place.addresses
        if not addresses:
            raise Over("no address is known of it")
        address = addresses[self._turn % len(addresses)]
        self.phase, self._called_ms = Phase.CALLING, now_ms()
        channel: grpc.aio.Channel | None = None
        limit_ms = hello_ms(self._slow, self._limits)
        try:
            async with asyncio.timeout(limit_ms / 1_000) as self._patience:
                answerer = await self._trust.answerer(self.member, address)
                self._keys = self._trust.credentials()
                channel = open_channel(address, self._keys, answerer)
                await _connect(channel)
                call: Call = channel.stream_stream(LINK_PATH)()
                self._chain = (answerer.certificate_pem + answerer.issuers_pem,)
                certified = self._trust.member_of(self._chain)
                hello = await self._greet(call, certified)
            self._patience, self._slow = None, 0
            await self._stand(call, hello, certified)
        except TimeoutError:
            self._slow += 1
            raise Over(f"{address}: no Hello within {limit_ms} ms") from None
        except ZaibeiError as exc:  # of the trust: who answers there is not this member, or nobody answers
            raise Over(f"{address}: {exc.trouble.message}") from exc
        finally:
            self._patience = None
            if channel is not None:
                await channel.close()

    async def _greet(self, call: Call, certified: tuple[int, str]) -> peer_pb2.Hello:
        """Hello in both directions. Raises Refused, Over."""
        await _write(call, peer_pb2.LinkMessage(hello=self._own()).SerializeToString())
        message = read_link_message(await _read(call))
        if not message.HasField("hello"):
            raise Refused(Reason.UNEXPECTED, "its answer does not begin with a Hello")
        self._book.check(message.hello, certified)
        if message.hello.member != self.member:
            raise Refused(Reason.MEMBER, f"member {message.hello.member} answers where member {self.member} is called")
        return message.hello

    async def _stand(self, call: Call, hello: peer_pb2.Hello, certified: tuple[int, str]) -> None:
        loop = asyncio.get_running_loop()
        self._watch = BeatWatch(self._limits, now_ms())
        self._writer = Writer(Outbox(self._limits), lambda octets: _write(call, octets), self._room, self._held)
        self._counted_octets = self._asked = 0
        self.boot = hello.boot
        ended = self._ended = loop.create_future()
        self.phase = Phase.STANDS
        tasks: set[asyncio.Future[Any]] = {
            loop.create_task(self._hear(call, hello, certified)),
            loop.create_task(self._writer.run()),
        }
        try:
            self._book.ours(self.member, hello)
            self.tick(now_ms(), 0)
            done, _ = await asyncio.wait({ended, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if ended in done:
                raise Over(ended.result(), refused=self._refused)
            for task in done:
                task.result()
        except (Over, Refused) as exc:
            self._over(exc)  # before anything that waits: whoever follows this member wants to know at once
            raise
        finally:
            self.phase, self._writer, self._ended = Phase.PAUSING, None, None
            for task in tasks:
                task.cancel()
            call.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self, call: Call, first: peer_pb2.Hello, certified: tuple[int, str]) -> None:
        """What comes on the answer stream. Raises Over at its end, Refused."""
        while True:
            message = read_link_message(await _read(call))
            match message.WhichOneof("body"):
                case "beat":
                    self._beat(message.beat)
                case "hello":
                    self._book.check(message.hello, certified)
                    self._book.greeted(message.hello, first)
                case body:
                    raise Refused(Reason.UNEXPECTED, f"{body} among answers: members send on their own call")

    def _beat(self, beat: peer_pb2.LinkBeat) -> None:
        at_ms = now_ms()
        if not beat.answer or not self._watch.answered(beat.serial, at_ms):
            raise Refused(Reason.UNEXPECTED, f"an answer to beat {beat.serial}, which we did not send")
        if beat.serial >= self._asked:
            self._asked = 0
        if self._writer is not None:
            self._writer.wake()  # more may leave
        if self._watch.round_trips_ms:
            self._book.metrics.round_trip(self.member, self._watch.round_trips_ms[-1])


async def _connect(channel: grpc.aio.Channel) -> None:
    """Until the channel stands or cannot; the call then tells why.

    Our Hello is made behind it, never before: what was known before the connection may reach a process that was started
    meanwhile, without the promises that its last life made to us, and would make it sound (RAFT rule 6).
    """
    while (state := channel.get_state(try_to_connect=True)) in WAITING:
        await channel.wait_for_state_change(state)


async def _read(call: Call) -> bytes:
    """The next message. Raises Over."""
    try:
        octets = await call.read()
    except (grpc.RpcError, asyncio.InvalidStateError) as exc:
        raise await _end_of(call) from exc
    if not isinstance(octets, bytes):
        raise await _end_of(call)
    return octets


async def _write(call: Call, octets: bytes) -> None:
    """Raises Over."""
    try:
        await call.write(octets)
    except (grpc.RpcError, asyncio.InvalidStateError) as exc:
        raise await _end_of(call) from exc


async def _end_of(call: Call) -> Over:
    """Why the call can be used no more: the status it ended with; what a failed write says is none."""
    try:
        async with asyncio.timeout(STATUS_S_MAX):
            code, details = await call.code(), await call.details()
    except TimeoutError:
        code, details = grpc.StatusCode.UNKNOWN, "the stream broke"
    text = (details or "the stream is over")[:500]
    if code in REFUSALS:
        return Over(f"it refuses us: {text}", refused=True)
    return Over(f"{code.name.lower()}: {text}")
