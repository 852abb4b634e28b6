"""Sessions of the Handle protocol: who has one, with which key, and whether its owner proved who it is. Pure.

| a session is | until | then |
| --- | --- | --- |
| KEYLESS | its client sends the key (mode 2) | OPENED; until then nothing else in it is judged |
| KEYLESS | as OPENED | ENDED |
| OPENED | a proof of its identity in it is good | PROVED: its messages need no challenge any more |
| OPENED | `opened_ms` are over, or its place is needed by another of its own client | ENDED |
| PROVED | it is unused for its time, it is as old as `life_ms`, or its key is gone | ENDED |
| either | its client ends it | ENDED |

Every message in a session has a MAC, and a counter that is used once: of those seen, the newest `window` are remembered, and what
is older is refused. Whoever opens sessions by the thousand fills its own share alone; who has proved a key keeps its session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from hosting.guard.clients import share_of
from hosting.handle.edits import Denied
from hosting.handle.permits import same_key
from replica.model.handle.ciphers import decrypted
from replica.model.handle.codes import OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.macs import AES_128, judge_mac
from replica.model.handle.message import Message, decode_envelope, decode_message
from replica.model.handle.values import Reference

UNKNOWN = Denied(ResponseCode.SESSION_TIMEOUT, "there is no such session, or its time is over: open one")
KEYLESS = Denied(ResponseCode.INVALID_SESSION_KEY, "this session has no key yet: send it by an exchange of keys (402)")
KEYED = Denied(ResponseCode.SESSION_MESSAGE_REJECTED, "this session has its key")
REPLAYED = Denied(ResponseCode.SESSION_MESSAGE_REJECTED, "this counter was used in the session before, or is too old")
UNREADABLE = "what was encrypted is not of this message and this session"
SWEEP_MS = 1_000  # between two looks for those whose time is over
COUNTERS = 0x7FFFFFFF  # the standard client reads them as signed numbers


def wants_hidden(message: Message) -> bool:
    """Is this a resolution whose sender is in a session and wants more than what the public may read?"""
    hidden = message.header.op_code == OpCode.RESOLUTION and not message.header.flags & OpFlag.PUBLIC_ONLY
    return bool(hidden and message.envelope.session_id and message.credential)


class SessionState(Enum):
    KEYLESS = "keyless"
    OPENED = "opened"
    PROVED = "proved"
    ENDED = "ended"


MOVES = {
    SessionState.KEYLESS: frozenset({SessionState.OPENED, SessionState.ENDED}),
    SessionState.OPENED: frozenset({SessionState.PROVED, SessionState.ENDED}),
    SessionState.PROVED: frozenset({SessionState.ENDED}),
    SessionState.ENDED: frozenset[SessionState](),
}


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Of the table.

    Args:
        sessions_max, client_max: sessions in all, and of one client: an IPv4 address, or a /56 of IPv6.
        opened_max, client_opened_max: those of them without a proof; datagrams_opened_max: of those, asked for over UDP.
        opened_ms: time for the proof. idle_ms_min, idle_ms_max: what a client may wish as the time without a message.
        life_ms: from its opening, however busy it is.
        window: counters remembered.
    """

    sessions_max: int = 4_096
    client_max: int = 64
    opened_max: int = 1_024
    client_opened_max: int = 16
    datagrams_opened_max: int = 512
    opened_ms: int = 60_000
    idle_ms_min: int = 60_000
    idle_ms_max: int = 3_600_000
    life_ms: int = 86_400_000
    window: int = 200


@dataclass(slots=True)
class Session:
    """One session.

    Args:
        client: address that opened it.
        key: of its MACs, and its `algorithm` for encryption; empty while it is keyless.
        identity: key that may be proved in it; None: nobody's.
        idle_ms: it ends without a message for so long.
        proof: what the proved key looked like; another key in its place ends the session.
        datagram: it was asked for over UDP, where the address may be forged.
    """

    session_id: int
    client: str
    key: bytes
    identity: Reference | None
    idle_ms: int
    began_ms: int
    used_ms: int
    state: SessionState = SessionState.OPENED
    proof: bytes = b""
    said: int = 0
    top: int = -1
    seen: set[int] = field(default_factory=set)
    algorithm: int = AES_128
    datagram: bool = False

    def move(self, to: SessionState) -> None:
        if to not in MOVES[self.state]:
            raise ValueError(f"a session that is {self.state.value} does not become {to.value}")
        self.state = to

    def count(self) -> int:
        """Counter of our next message."""
        self.said = self.said % COUNTERS + 1
        return self.said

    def fresh(self, counter: int, window: int) -> bool:
        """Is this the first message with this counter? Then it is no more."""
        if counter in self.seen or counter <= self.top - window:
            return False
        self.seen.add(counter)
        self.top = max(self.top, counter)
        if len(self.seen) > 2 * window:  # what is older than the window is refused without them
            self.seen = {one for one in self.seen if one > self.top - window}
        return True


class Sessions:
    """See the module."""

    def __init__(self, limits: SessionLimits | None = None) -> None:
        self.limits = limits or SessionLimits()
        self._open: dict[int, Session] = {}
        self._clients: dict[str, dict[int, None]] = {}  # ids of each client as it is counted, oldest first
        self._unproved = self._unproved_datagrams = 0
        self._swept_ms = -SWEEP_MS

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._open

    def room(self, client: str, now_ms: int, *, datagram: bool = False) -> bool:
        """Make room for one more, at the cost of its own client's unproved ones alone. False: there is none."""
        limits = self.limits
        if abs(now_ms - self._swept_ms) >= SWEEP_MS:
            self._swept_ms = now_ms
            for one in [one for one in self._open.values() if self._over(one, now_ms)]:
                self.end(one)
        mine = [self._open[number] for number in self._clients.get(share_of(client, forgeable=datagram), ())]
        waiting = [one for one in mine if one.state is not SessionState.PROVED]
        if waiting and (len(mine) >= limits.client_max or len(waiting) >= limits.client_opened_max):
            self.end(waiting[0])
        elif len(mine) >= limits.client_max:
            return False
        if datagram and self._unproved_datagrams >= limits.datagrams_opened_max:
            return False
        return len(self._open) < limits.sessions_max and self._unproved < limits.opened_max

    def open(
        self,
        session_id: int,
        client: str,
        key: bytes,
        identity: Reference | None,
        timeout_s: int,
        now_ms: int,
        *,
        datagram: bool = False,
    ) -> Session:
        """A session for which `room` was made. `key` empty: it comes later, see `keyed`."""
        idle_ms = min(max(timeout_s * 1_000, self.limits.idle_ms_min), self.limits.idle_ms_max)
        self._clients.setdefault(share_of(client, forgeable=datagram), {})[session_id] = None
        self._unproved += 1
        self._unproved_datagrams += datagram
        state = SessionState.OPENED if key else SessionState.KEYLESS
        made = Session(session_id, client, key, identity, idle_ms, now_ms, now_ms, state, datagram=datagram)
        self._open[session_id] = made
        return made

    def keyless(self, session_id: int, client: str, now_ms: int) -> Session | Denied:
        """The session of this client that waits for its key."""
        found = self._open.get(session_id)
        if found is None or found.client != client or self._over(found, now_ms):
            return UNKNOWN
        return found if found.state is SessionState.KEYLESS else KEYED

    def keyed(self, session: Session, key: bytes, algorithm: int) -> Denied | None:
        """Its key came. None: it is the session's now."""
        if session.state is not SessionState.KEYLESS:
            return UNKNOWN if session.state is SessionState.ENDED else KEYED
        session.key, session.algorithm = key, algorithm
        session.move(SessionState.OPENED)
        return None

    def used(self, message: Message, octets: bytes, now_ms: int) -> Session | Denied:
        """The session a message is of, when its MAC and its counter are good."""
        found = self._open.get(message.envelope.session_id)
        if found is None:
            return UNKNOWN
        if self._over(found, now_ms):
            self.end(found)
            return UNKNOWN
        if found.state is SessionState.KEYLESS:
            return KEYLESS
        try:
            counter = judge_mac(message, octets, found.key)
        except ProtocolFault as fault:
            return Denied(fault.code or ResponseCode.INVALID_CREDENTIAL, fault.detail)
        if not found.fresh(counter, self.limits.window):
            return REPLAYED
        found.used_ms = now_ms
        return found

    def of_client(self, session_id: int, client: str, now_ms: int) -> Session | None:
        """A session whose number alone is its proof; it was used now."""
        found = self._open.get(session_id)
        if found is None or found.client != client:
            return None
        if self._over(found, now_ms):
            self.end(found)
            return None
        found.used_ms = now_ms
        return found

    def readable(self, octets: bytes, now_ms: int) -> bytes:
        """An encrypted message in clear, when its MAC is good.

        Raises:
            ProtocolFault: SESSION_TIMEOUT (no such session), INVALID_SESSION_KEY. All that can be wrong with it sounds the same:
                told apart, faults of the padding would let who altered a message guess what it says.
        """
        envelope = decode_envelope(octets)
        found = self._open.get(envelope.session_id)
        if found is None or self._over(found, now_ms):
            raise ProtocolFault(UNKNOWN.text, UNKNOWN.code, envelope)
        if found.state is SessionState.KEYLESS:
            raise ProtocolFault(UNREADABLE, ResponseCode.INVALID_SESSION_KEY, envelope)
        try:
            plain = decrypted(octets, found.key, found.algorithm)
            judge_mac(decode_message(plain), plain, found.key)
        except ProtocolFault as fault:
            raise ProtocolFault(UNREADABLE, ResponseCode.INVALID_SESSION_KEY, envelope) from fault
        return plain

    def cipher(self, session_id: int) -> tuple[bytes, int] | None:
        """Key and algorithm of a session that has one."""
        found = self._open.get(session_id)
        return None if found is None or not found.key else (found.key, found.algorithm)

    def proved(self, session: Session, key: Reference, proof: bytes) -> None:
        """A key was proved in a session; it is the session's from now on if it is its identity."""
        if session.state is SessionState.OPENED and session.identity is not None and same_key(session.identity, key):
            session.move(SessionState.PROVED)
            self._unproved -= 1
            self._unproved_datagrams -= session.datagram
            session.proof = proof

    def end(self, session: Session) -> None:
        """Harmless when it has ended."""
        if self._open.pop(session.session_id, None) is None:
            return
        if session.state is not SessionState.PROVED:
            self._unproved -= 1
            self._unproved_datagrams -= session.datagram
        session.move(SessionState.ENDED)
        place = share_of(session.client, forgeable=session.datagram)
        mine = self._clients[place]
        del mine[session.session_id]
        if not mine:
            del self._clients[place]

    def _over(self, one: Session, now_ms: int) -> bool:
        if now_ms - one.began_ms >= self.limits.life_ms:
            return True
        if one.state is not SessionState.PROVED:
            return abs(now_ms - one.began_ms) >= self.limits.opened_ms  # begun later than now: the clock was set back
        return now_ms - one.used_ms >= one.idle_ms
