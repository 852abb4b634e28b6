"""Sends the datagram beats of one stream to the observers that asked for them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket

from replica.feed.limits import BEAT_KEY_OCTETS
from replica.feed.source_port import SourceLog
from replica.feed.source_session import Arm, SourceSession
from replica.model.beat import HeadBeat, encode_beat
from replica.v1 import source_pb2

LOGGER = logging.getLogger("zaibei.feed.source")


class BeatSender:
    """Beats every `arm.interval_ms` from its own timer, so that a busy stream does not delay them; close it with the stream."""

    def __init__(self, session: SourceSession, log: SourceLog, arm: Arm) -> None:
        self._session, self._log, self._arm = session, log, arm
        self._counter = 0
        self._sockets: list[socket.socket] = []
        self._timer: asyncio.TimerHandle | None = None
        if len(arm.key) != BEAT_KEY_OCTETS:
            LOGGER.warning("datagram beats need a key of 32 octets: none are sent", extra={"source": session.source})
            return
        for receiver in arm.receivers:
            if (out := _connected(receiver)) is not None:
                self._sockets.append(out)
        self._loop = asyncio.get_running_loop()
        self._next_s = self._loop.time()
        self._beat()

    def _beat(self) -> None:
        self._counter += 1
        head = HeadBeat(self._session.source, self._log.head(), self._session.nonce)
        datagram = encode_beat(self._arm.key, self._counter, [head])
        for out in self._sockets:
            try:
                out.send(datagram)
            except OSError:
                pass  # an observer that is not there now; beats are repeated, and silence is its own message
        self._next_s = max(self._next_s + self._arm.interval_ms / 1_000, self._loop.time())
        self._timer = self._loop.call_at(self._next_s, self._beat)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for out in self._sockets:
            out.close()
        self._sockets.clear()


def _connected(receiver: source_pb2.Endpoint) -> socket.socket | None:
    """A socket for one observer; None when its address is no literal (names are never looked up here)."""
    try:
        address = ipaddress.ip_address(receiver.address)
    except ValueError:
        LOGGER.warning("an observer's address is not an IP literal: no beats for it", extra={"address": receiver.address[:64]})
        return None
    out = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    out.setblocking(False)
    try:
        out.connect((str(address), receiver.port))
    except (OSError, OverflowError) as exc:
        LOGGER.warning("no beats for an observer", extra={"address": str(address), "why": str(exc)})
        out.close()
        return None
    return out
