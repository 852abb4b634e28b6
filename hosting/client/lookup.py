"""What is asked, what came back, and what a response code means for going on (HANDLE_PROTOCOL 2.5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from ipaddress import IPv6Address

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue

FLAGS_PLAIN = 0x1900_0000  # REC, CA, PO: what every resolver sends


class Rc(IntEnum):
    """Response codes a client decides by."""

    SUCCESS = 1
    ERROR = 2
    NOT_FOUND = 100
    VALUES_NOT_FOUND = 200
    SERVICE_REFERRAL = 302
    PREFIX_REFERRAL = 303


class Turn(StrEnum):
    """What a response code asks of the client."""

    FINAL = "final"
    NEXT = "next"  # this server cannot say: another one may
    REFERRAL = "referral"


def turn_of(code: int) -> Turn:
    """Only 2 sends a client to the next site; 100, 200, 3, 5, 7 and 301 are final (measured with the deployed resolver)."""
    if code == Rc.ERROR:
        return Turn.NEXT
    if code in (Rc.SERVICE_REFERRAL, Rc.PREFIX_REFERRAL):
        return Turn.REFERRAL
    return Turn.FINAL


@dataclass(frozen=True, slots=True)
class Question:
    """One resolution. Empty lists: all values; both given: their union."""

    name: str
    indexes: tuple[int, ...] = ()
    types: tuple[str, ...] = ()
    flags: int = FLAGS_PLAIN


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """Where to ask. `protocol`: "udp", "tcp" or "http"; a numeric IPv4 or IPv6 address, or a name for http."""

    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.protocol}://{host}:{self.port}"

    @staticmethod
    def parse(text: str, protocol: str = "tcp", port: int = 2641) -> Server:
        """`[udp://|tcp://|http://]host[:port]`, IPv6 in brackets when a port follows.

        Raises:
            ZaibeiError(MALFORMED): not such a thing.
        """
        scheme, found, rest = text.partition("://")
        if not found:
            scheme, rest = protocol, text
        host, port_text = rest.rstrip("/"), ""
        if host.startswith("["):
            host, _, tail = host[1:].partition("]")
            port_text = tail.removeprefix(":")
        elif host.count(":") == 1:
            host, _, port_text = host.partition(":")
        literal = ":" not in host or _is_ipv6(host)
        if scheme not in ("udp", "tcp", "http") or not host or not literal or (port_text and not port_text.isdigit()):
            raise ZaibeiError(Code.MALFORMED, f"not a server: {text!r}; write tcp://192.0.2.1:2641 or [::1]:2641")
        number = int(port_text) if port_text else 8000 if scheme == "http" and port == 2641 else port
        if not 0 < number < 65_536:
            raise ZaibeiError(Code.MALFORMED, f"not a port: {number}")
        return Server(scheme, host, number)


def _is_ipv6(host: str) -> bool:
    try:
        return IPv6Address(host) is not None
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Reply:
    """One server's answer.

    Args:
        values: of a success or a referral.
        message: text of an error, or the referral's handle.
        expires_s: Unix seconds until which the message is valid; 0 over HTTP.
        vouch: headers of a JSON answer that say position and freshness; empty otherwise.
    """

    code: int
    values: tuple[HandleValue, ...] = ()
    message: str = ""
    expires_s: int = 0
    vouch: tuple[tuple[str, str], ...] = ()

    @property
    def turn(self) -> Turn:
        return turn_of(self.code)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One exchange of a lookup, for people and for drills: what was asked where, how it ended, when since the lookup began."""

    server: Server
    started_ms: float
    ended_ms: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """A finished lookup.

    Args:
        reply: the final one; its code may well be 100.
        server: who gave it; took_ms: since the lookup began.
        hops: referrals followed.
        attempts: all exchanges, in order of their end; cancelled ones are missing.
    """

    name: str
    reply: Reply
    server: Server
    took_ms: float
    hops: int = 0
    attempts: tuple[Attempt, ...] = ()
