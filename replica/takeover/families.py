"""Which of our own published addresses answer, told by IP family, and our site without those that do not.

An address is judged by who looks at it from outside: our other members connect to it and resolve. Our own look at it says only
that something listens: between it and the world lies what it never crosses. Where there is no other member, ours is all there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from replica.model.errors import require
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.types import ALT_ADDR, HsSite, Protocol, address_octets, decode_site, encode_site
from replica.model.node import Endpoint
from replica.takeover.overlay import is_site, site_with

MS = 1_000_000
FAILED_MIN = 3  # looks in a row at which nobody was answered: the address is dead
ANSWERED_MIN = 5  # looks in a row at which somebody was, before a dead one is published again
KNOWN_MS_MAX = 12_000  # older than that a look says nothing any more


class Reach(StrEnum):
    """What is known of one address of ours."""

    UNKNOWN = "unknown"
    ANSWERS = "answers"
    DEAD = "dead"


MOVES: dict[Reach, frozenset[Reach]] = {
    Reach.UNKNOWN: frozenset({Reach.ANSWERS, Reach.DEAD}),
    Reach.ANSWERS: frozenset({Reach.UNKNOWN, Reach.DEAD}),
    # Nobody looks any more: that gives it back to nobody.
    Reach.DEAD: frozenset({Reach.ANSWERS}),
}


def family_of(host: str) -> str:
    """Of a numeric host, as people write it."""
    return "IPv6" if ":" in host else "IPv4"


@dataclass(frozen=True, slots=True)
class Look:
    """What one round saw of one address.

    Args:
        here: this very member was answered.
        outside: by name of a member that looked, whether it was answered.
        alone: there is no other member.
    """

    here: bool
    outside: Mapping[str, bool] = field(default_factory=dict)
    alone: bool = False

    @property
    def answered(self) -> bool | None:
        """None: it says nothing. Nobody outside looked, and our own answer is no proof of what they would get."""
        if self.outside:
            return any(self.outside.values())
        return self.here if self.alone or not self.here else None


@dataclass(slots=True)
class Watched:
    """One address of ours. `since_ns`: of its state; `seen_ns`: of the newest look that said something."""

    host: str
    since_ns: int
    state: Reach = Reach.UNKNOWN
    seen_ns: int | None = None
    last: Look | None = None
    _answered: int = 0
    _failed: int = 0

    def look(self, look: Look, now_ns: int) -> None:
        """One round ended."""
        self.last = look
        if (answered := look.answered) is None:
            self.age(now_ns)
            return
        self.seen_ns = now_ns
        self._answered, self._failed = (self._answered + 1, 0) if answered else (0, self._failed + 1)
        if self._failed >= FAILED_MIN:
            self._move(Reach.DEAD, now_ns)
        elif answered and (self.state is Reach.UNKNOWN or self._answered >= ANSWERED_MIN):
            self._move(Reach.ANSWERS, now_ns)

    def age(self, now_ns: int) -> None:
        """Time passed: what was seen long ago is known no more."""
        stale = self.seen_ns is None or now_ns - self.seen_ns > KNOWN_MS_MAX * MS
        if stale and self.state is Reach.ANSWERS:
            self._move(Reach.UNKNOWN, now_ns)

    def _move(self, state: Reach, now_ns: int) -> None:
        if state is self.state:
            return
        require(state in MOVES[self.state], f"an address of ours cannot move from {self.state} to {state}")
        self.state, self.since_ns = state, now_ns

    def seen_by(self) -> str:
        """Who saw it last, for people."""
        if self.last is None:
            return "nobody looked yet"
        if self.last.outside:
            return f"seen from {', '.join(sorted(self.last.outside))}"
        return "seen from this member alone" if self.last.alone else "no other member could look"


class Families:
    """All published addresses of one member's site."""

    def __init__(self, site: bytes, now_ns: int) -> None:
        self.site = site
        self.watched = {host: Watched(host, now_ns) for host in hosts_of(site)}

    def looked(self, looks: Mapping[str, Look], now_ns: int) -> None:
        """A round ended; addresses it left out were not looked at."""
        for host, watched in self.watched.items():
            if host in looks:
                watched.look(looks[host], now_ns)
            else:
                watched.age(now_ns)

    def dead(self) -> frozenset[str]:
        """Addresses that are not published while another one is left."""
        return frozenset(host for host, watched in self.watched.items() if watched.state is Reach.DEAD)

    def rows(self, now_ns: int) -> list[dict[str, object]]:
        """For `takeover status --json` and metrics: one row an address."""
        left = hosts_of(site_without(self.site, self.dead()))
        rows: list[dict[str, object]] = []
        for host, watched in self.watched.items():
            watched.age(now_ns)
            rows.append(
                {
                    "address": host,
                    "family": family_of(host),
                    "state": watched.state.value,
                    "published": host in left,
                    "since_ms": (now_ns - watched.since_ns) // MS,
                    "seen": watched.seen_by(),
                }
            )
        return rows

    def warnings(self, now_ns: int) -> list[str]:
        """Sentences for a person."""
        return [text for row in self.rows(now_ns) if (text := _warning(row, self.watched))]


def _warning(row: Mapping[str, object], watched: Mapping[str, Watched]) -> str:
    if row["state"] != Reach.DEAD:
        return ""
    text = f"our address {row['address']} ({row['family']}) answers nobody, {row['seen']}"
    if row["published"]:
        return (
            f"{text}, nor does any other of ours: our site is published as it is configured, and may lead nowhere."
            " Next: look at this machine's network, and at [site] addresses"
        )
    told = f"{text}: takeovers are published without it"
    family = str(row["family"])
    if all(one.state is Reach.DEAD for host, one in watched.items() if family_of(host) == family):
        told += f", to clients of {family} alone we cannot be found"
    return f"{told}. Next: look at its route and its filter; when it answers again, it is published by itself"


# ------------------------------------------------------------------------------------------------------------------- sites


def _decoded(site: bytes) -> HsSite | None:
    try:
        return decode_site(site)
    except ProtocolFault:
        return None


def hosts_of(site: bytes) -> tuple[str, ...]:
    """Every address of a site, in its order; none of what is no site."""
    decoded = _decoded(site)
    return () if decoded is None else tuple(dict.fromkeys(host for one in decoded.servers for host in decoded.hosts(one)))


def endpoints_of(site: bytes) -> dict[str, tuple[Endpoint, ...]]:
    """Where each address of a site is asked: over TCP, which the national clients take, else over UDP."""
    decoded, found = _decoded(site), dict[str, tuple[Endpoint, ...]]()
    for server in () if decoded is None else decoded.servers:
        ways = [(word, server.port(protocol)) for word, protocol in (("tcp", Protocol.TCP), ("udp", Protocol.UDP))]
        chosen = next(((word, port) for word, port in ways if port), None)
        if chosen is not None:
            for host in decoded.hosts(server) if decoded else ():
                found[host] = (*found.get(host, ()), Endpoint(chosen[0], host, chosen[1]))
    return found


def site_without(site: bytes, dead: Iterable[str]) -> bytes:
    """The same site without these addresses: serial, flags, ports and all else stay.

    Returns:
        The site as it is where nothing of it is dead, all of it is (then nobody knows anything better), or it is no site.
    """
    decoded, gone = _decoded(site), set(dead)
    if decoded is None or not gone.intersection(hosts_of(site)):
        return site
    servers, attributes = [], list(decoded.attributes)
    for server in decoded.servers:
        names = (ALT_ADDR, ALT_ADDR + b"." + str(server.server_id).encode())
        left = [host for host in decoded.hosts(server) if host not in gone]
        if not left:
            continue
        attributes = [one for one in attributes if one[0] not in names]
        attributes += [(names[len(decoded.servers) > 1], host.encode()) for host in left[1:]]
        servers.append(replace(server, address=address_octets(left[0])))
    if not servers:
        return site
    try:
        return encode_site(replace(decoded, servers=tuple(servers), attributes=tuple(attributes)))
    except CodecMisuse:
        return site


def is_outdated(published: bytes, own_site: bytes, dead: Iterable[str]) -> bool:
    """Does what is published lead elsewhere than our own site should now? As where an address died, or answers again, or another
    member of ours published its own before we led: it may be dead, and we could not judge its addresses."""
    if not (is_site(published) and is_site(own_site)):
        return False
    return _plain(published) != _plain(site_without(own_site, dead))


def _plain(site: bytes) -> bytes:
    return site_with(site, serial=0, primary=False)
