"""Health of the sites of enterprises below a tenant, to which we refer clients: what is probed, and what is known of it. Pure.

| health | when |
| --- | --- |
| UNKNOWN | never answered, failed less than FAILED_MIN times in a row, not probed lately, or not to be probed |
| OK | the last probe was answered, and began no longer ago than the interval and SLACK_S |
| FAILED | the last FAILED_MIN probes were not answered, the newest of them no longer ago than that |

One check is one interface at one address: UDP, TCP and HTTP, IPv4 and IPv6 (`alt_addr`), each by itself. A probe of ours that was
late counts for nothing. An enterprise is FAILED when one of its checks is, OK when all are, else UNKNOWN. It changes no referral.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hosting.client.lookup import Server
from replica.model.errors import require
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.types import HS_SERV, HS_SITE, HS_SITE_6, HsSite, InterfaceUse, Protocol, decode_site
from replica.model.handle.values import HandleValue, decode_record

FAILED_MIN = 3  # probes in a row
SLACK_S = 2.0
CHECKS_MAX = 16  # of one enterprise; more servers, addresses or interfaces are not probed, and it says so
ENTERPRISES_MAX = 2_000  # of one tenant; more are not probed
JUDGED_AT_ONCE = 200
NS = 1_000_000_000
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PROTOCOLS = {Protocol.UDP: "udp", Protocol.TCP: "tcp", Protocol.HTTP: "http"}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Health(StrEnum):
    """See the table above."""

    UNKNOWN = "UNKNOWN"
    OK = "OK"
    FAILED = "FAILED"


MOVES: Mapping[Health, frozenset[Health]] = {
    Health.UNKNOWN: frozenset({Health.OK, Health.FAILED}),
    Health.OK: frozenset({Health.UNKNOWN}),  # one failure is no proof: it is not known any more, and then it failed
    Health.FAILED: frozenset({Health.OK, Health.UNKNOWN}),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What an enterprise's prefix record names: servers to probe, service handles to look up, and what is left out."""

    servers: tuple[Server, ...] = ()
    services: tuple[str, ...] = ()
    left_out: int = 0


def named_in(record: bytes) -> Found:
    """Servers and service handles in a stored record that anyone may read; nothing when it does not parse."""
    try:
        values = [value for value in decode_record(record).values if value.public]
    except ProtocolFault:
        return Found()
    servers = list(dict.fromkeys(server for value in values for server in _servers(value)))
    services = tuple(value.data.decode("utf-8", "replace") for value in values if value.type.upper() == HS_SERV)
    return Found(tuple(servers[:CHECKS_MAX]), services[:1], len(servers[CHECKS_MAX:]))


def _servers(value: HandleValue) -> Iterator[Server]:
    if value.type.upper() not in (HS_SITE, HS_SITE_6):
        return
    try:
        site: HsSite = decode_site(value.data)
    except ProtocolFault:
        return
    for server in site.servers:
        for face in server.interfaces:
            protocol = _PROTOCOLS.get(face.protocol)  # type: ignore[call-overload]
            if protocol is not None and face.use & InterfaceUse.QUERY and 0 < face.port < 65_536:
                yield from (Server(protocol, host, face.port) for host in site.hosts(server))


def not_to_probe(server: Server, allowed: Sequence[Network], ourselves: frozenset[tuple[str, int]]) -> str:
    """Why an address that a tenant wrote is never asked by us; "": it may be.

    Whoever writes a record must not be able to send us into our own network: private, loopback, link-local, multicast, reserved
    addresses, and IPv6 addresses that carry such an IPv4 one, are asked only where the configuration names their network.
    """
    if (server.address, server.port) in ourselves:
        return "it is our own address"
    try:
        address = ipaddress.ip_address(server.address)
    except ValueError:
        return "it is no numeric address"
    for one in (address, *_carried(address)):
        if any(one.version == network.version and one in network for network in allowed):
            continue
        if not one.is_global or one.is_multicast:
            return f"{one} is no public address, and no network of [probes] networks"
    return ""


def _carried(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses inside an IPv6 one, by which a gateway would send on."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


@dataclass(slots=True)
class Check:
    """One interface at one address. Times are CLOCK_BOOTTIME nanoseconds; `since_ns`: of its health; `seen_ns`: when the last
    probe that counts began; `due_ns`: when the next one may."""

    server: Server
    since_ns: int
    refused: str = ""
    health: Health = Health.UNKNOWN
    why: str = "not probed so far"
    failures: int = 0
    seen_ns: int | None = None
    due_ns: int = 0
    busy: bool = False

    def probed(self, answered: bool | None, why: str, began_ns: int, now_ns: int) -> None:
        """A probe ended. None: ours was late, so it says nothing."""
        if answered is None:
            self.why = why if self.health is Health.UNKNOWN else self.why
            return
        self.seen_ns = began_ns
        self.failures = 0 if answered else self.failures + 1
        if answered:
            self._move(Health.OK, "it answers", now_ns)
        elif self.failures >= FAILED_MIN:
            self._move(Health.UNKNOWN if self.health is Health.OK else self.health, why, now_ns)
            self._move(Health.FAILED, f"{self.failures} probes failed: {why}", now_ns)
        else:
            self._move(Health.UNKNOWN if self.health is Health.OK else self.health, f"{self.failures} failed: {why}", now_ns)

    def at(self, interval_s: float, now_ns: int) -> Health:
        """Its health at this moment: what was seen long ago is known no more."""
        stale = self.seen_ns is None or now_ns - self.seen_ns > (interval_s + SLACK_S) * NS
        return Health.UNKNOWN if stale else self.health

    def age(self, interval_s: float, now_ns: int) -> None:
        """Time passed."""
        if self.at(interval_s, now_ns) is not self.health:
            self.failures = 0
            self._move(Health.UNKNOWN, "not probed lately", now_ns)

    def _move(self, health: Health, why: str, now_ns: int) -> None:
        self.why = why
        if health is not self.health:
            require(health in MOVES[self.health], f"a check cannot move from {self.health} to {health}")
            self.health, self.since_ns = health, now_ns


@dataclass(slots=True)
class Enterprise:
    """An enterprise's prefix, with all its checks. `note`: what stands against knowing it; `told`: its failure was an event."""

    prefix: str
    since_ns: int
    checks: dict[Server, Check] = field(default_factory=dict)
    note: str = ""
    health: Health = Health.UNKNOWN
    told: str = ""

    def at(self, interval_s: float, now_ns: int) -> Health:
        """Its health at this moment; changes nothing."""
        states = {check.at(interval_s, now_ns) for check in self.checks.values()}
        if Health.FAILED in states:
            return Health.FAILED
        return Health.OK if states == {Health.OK} and not self.note else Health.UNKNOWN

    def judge(self, interval_s: float, now_ns: int) -> Health:
        """Age all checks; its health from now on."""
        for check in self.checks.values():
            check.age(interval_s, now_ns)
        health = self.at(interval_s, now_ns)
        if health is not self.health:
            self.health, self.since_ns = health, now_ns
        return health

    @property
    def why(self) -> str:
        """The worst of its checks, in words."""
        worst = [check for check in self.checks.values() if check.health is self.health]
        if self.health is Health.OK:
            return f"all {len(self.checks)} interfaces answer"
        return "; ".join([*(f"{check.server}: {check.refused or check.why}" for check in worst[:3]), *filter(None, [self.note])])


class SiteBook:
    """What is known of the enterprises of all tenants that this member probes.

    Args:
        interval_s: between two probes of one check; longer where per_s does not allow it.
        per_s: probes a second, over all.
    """

    def __init__(self, interval_s: float, per_s: float, allowed: Sequence[Network] = ()) -> None:
        self._interval_s, self._per_s, self._allowed = interval_s, per_s, tuple(allowed)
        self.tenants: dict[str, dict[str, Enterprise]] = {}
        self._queue: list[tuple[int, int, str, Enterprise, Check]] = []  # by due_ns; one entry a check that may be probed
        self._checks = self._number = 0
        self._turn: list[tuple[str, Enterprise]] = []  # whom to judge next

    @property
    def interval_s(self) -> float:
        """What holds now: as many checks as there are share the probes of a second, one fifth of which is jitter."""
        return max(self._interval_s, 1.2 * self._checks / self._per_s)

    def found(
        self, source: str, named: Mapping[str, tuple[Found, str]], ourselves: frozenset[tuple[str, int]], now_ns: int
    ) -> None:
        """A tenant's prefix records were read: prefix -> what its record names, and what stands against knowing it.

        What was known of an interface stays known while some record of that prefix names it.
        """
        was, fresh = self.tenants.get(source, {}), dict[str, Enterprise]()
        for prefix, (one, note) in list(named.items())[:ENTERPRISES_MAX]:
            enterprise = was.get(prefix) or Enterprise(prefix, now_ns)
            kept = enterprise.checks
            enterprise.checks = {server: kept.get(server) or Check(server, now_ns) for server in one.servers}
            for server, check in enterprise.checks.items():
                check.refused = not_to_probe(server, self._allowed, ourselves)
            more = f"{one.left_out} more interfaces are not probed" if one.left_out else ""
            enterprise.note = "; ".join(filter(None, [note, more]))
            fresh[prefix] = enterprise
        self.tenants[source] = fresh
        self._renew()

    def forget(self, sources: Iterable[str]) -> None:
        """Tenants that another member probes, or that are gone."""
        for source in sources:
            self.tenants.pop(source, None)
        self._renew()

    def _renew(self) -> None:
        self._queue = []
        for source, enterprises in self.tenants.items():
            for enterprise in enterprises.values():
                for check in enterprise.checks.values():
                    if not check.refused:
                        self._number += 1
                        self._queue.append((check.due_ns, self._number, source, enterprise, check))
        self._checks = len(self._queue)
        heapq.heapify(self._queue)

    def due(self, now_ns: int) -> tuple[str, Enterprise, Check] | None:
        """The check that waits longest, until `wait` says when it comes again; None: none is due."""
        while self._queue and self._queue[0][0] <= now_ns:
            _, _, source, enterprise, check = heapq.heappop(self._queue)
            if not check.busy and check.due_ns <= now_ns:
                return source, enterprise, check
        return None

    def wait(self, source: str, enterprise: Enterprise, check: Check, due_ns: int) -> None:
        """It was probed; the next time is then."""
        check.due_ns = due_ns
        if self.tenants.get(source, {}).get(enterprise.prefix) is enterprise and enterprise.checks.get(check.server) is check:
            self._number += 1
            heapq.heappush(self._queue, (due_ns, self._number, source, enterprise, check))

    def turned(self, now_ns: int, many: int = JUDGED_AT_ONCE) -> list[tuple[str, Enterprise, bool]]:
        """Judge the next few: those that failed (True), or that answer again after a failure that was told (False)."""
        if not self._turn:
            self._turn = [(source, one) for source, enterprises in self.tenants.items() for one in enterprises.values()]
        interval_s, found = self.interval_s, list[tuple[str, Enterprise, bool]]()
        for _ in range(min(many, len(self._turn))):
            source, enterprise = self._turn.pop()
            if self.tenants.get(source, {}).get(enterprise.prefix) is not enterprise:
                continue
            health = enterprise.judge(interval_s, now_ns)
            if health is Health.FAILED and not enterprise.told:
                found.append((source, enterprise, True))
            elif health is Health.OK and enterprise.told:
                found.append((source, enterprise, False))
        return found

    def counts(self, source: str, now_ns: int) -> dict[Health, int]:
        """Enterprises of a tenant by health, for metrics; from any thread."""
        states = [one.at(self.interval_s, now_ns) for one in list(self.tenants.get(source, {}).values())]
        return {health: states.count(health) for health in Health}
