"""Probes the sites of enterprises below the tenants that are led here (hosting/tenant/site_health.py judges).

Few probes a second over all tenants, at uneven moments; each asks one interface at one address for the enterprise's own prefix
record, as a client would. Whatever well-formed answer comes is a sign of life, but "cannot say" (2), which sends a client on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hosting.answer.sites import endpoints_of
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Question, Rc, Server
from hosting.guard.edge_teller import Teller
from hosting.guard.events import Cause, Kind, SecurityEvent, State
from hosting.tenant.offices import Office, Offices
from hosting.tenant.site_health import ENTERPRISES_MAX, FAILED_MIN, Check, Enterprise, Found, SiteBook, named_in
from ops.config.values import ProbeSettings
from replica.member.member import Member
from replica.model.errors import ZaibeiError
from replica.model.identifier import ROUTE, SEP, Identifier, prefix_part, prefix_text

PROBE_S_MAX = 1.5
RETRY_S = (0.5, 1.0)  # of one probe over UDP
LATE_S_MAX = 0.5  # a probe of ours that took so much longer than its limit was held up here, and says nothing
READ_S = 30.0  # between two looks at the tenants' prefix records
IDLE_S = 0.2
SPREAD = (1.0, 1.2)  # of the pause between two probes
EARLY = (0.8, 1.0)  # of the interval, so that probes of one moment part
AGAIN_S = 5.0  # after a failure, until it counts as FAILED; then as ever: the dead take no time from the living
AT_ONCE_MAX = 16
EVENTS_PER_MINUTE_MAX = 20
SCAN_ROWS = 64
NS = 1_000_000_000
log = logging.getLogger("zaibei.sites")


class SiteProber:
    """All tenants of a member. `run` until cancelled.

    Args:
        boottime_ns: CLOCK_BOOTTIME. chance: jitter.
    """

    def __init__(
        self,
        member: Member,
        offices: Offices,
        settings: ProbeSettings,
        teller: Teller | None = None,
        *,
        boottime_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        chance: random.Random | None = None,
    ) -> None:
        self._member, self._offices, self.settings, self._teller = member, offices, settings, teller
        self._now_ns, self._chance = boottime_ns, chance or random.Random()
        networks = [ipaddress.ip_network(one) for one in settings.networks]
        self.book = SiteBook(settings.interval_s, max(1, settings.per_s), networks)
        self.ended: dict[tuple[str, str], int] = {}  # (source, outcome) -> probes
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: list[int] = []
        self._held_back = 0

    async def run(self) -> None:
        """Read, probe, judge, tell; a fault with one tenant does not stop the others."""
        if not self.settings.per_s:
            return
        read_ns = None
        try:
            while True:
                now_ns = self._now_ns()
                if read_ns is None or now_ns - read_ns > READ_S * NS:
                    await self.read()
                    read_ns = now_ns
                self._tell()
                chosen = self.book.due(self._now_ns()) if len(self._tasks) < AT_ONCE_MAX else None
                if chosen is None:
                    await asyncio.sleep(IDLE_S)
                    continue
                self._begin(*chosen)
                await asyncio.sleep(self._chance.uniform(*SPREAD) / self.settings.per_s)
        finally:
            for task in self._tasks:
                task.cancel()

    # ------------------------------------------------------------------------------------------------------------ reading
    async def read(self) -> None:
        """Which enterprises there are: the prefix records below the prefixes of each tenant that is led here."""
        led = set()
        for settings in self._offices.settings:
            try:
                office = self._offices.office_of(settings.source)
                if not office.clerk.group.leader:
                    continue
                named = await self._named(office)
            except ZaibeiError as exc:
                log.info("a tenant's sites were not read", extra={"fields": {"source": settings.source, "why": str(exc)}})
                continue
            led.add(settings.source)
            self.book.found(settings.source, named, endpoints_of(self._member.settings.own_site), self._now_ns())
        self.book.forget(set(self.book.tenants) - led)

    async def _named(self, office: Office) -> dict[str, tuple[Found, str]]:
        named: dict[str, tuple[Found, str]] = {}
        group = office.clerk.group
        for prefix in group.state().prefixes:
            start, stop = ROUTE + prefix + SEP, ROUTE + prefix + b"\x02"
            while start < stop and len(named) < ENTERPRISES_MAX:
                rows = await group.scan(start, stop, SCAN_ROWS)
                for key, record in rows:
                    found, note = self._followed(named_in(record))
                    if found.servers or note:
                        named[prefix_text(prefix_part(key)[1:])] = found, note
                if len(rows) < SCAN_ROWS:
                    break
                start = rows[-1][0] + b"\0"
        return named

    def _followed(self, found: Found) -> tuple[Found, str]:
        """With the sites of a service handle that it names, where that is held here: one indirection."""
        if not found.services:
            return found, ""
        name = found.services[0]
        try:
            identifier = Identifier.parse(name)
            owner = self._member.owner_of(identifier.prefix)
            copy = self._member.copies.get(owner or "")
            [record] = [None] if copy is None else copy.store.get_many([identifier.key()])[0]
        except ZaibeiError:
            record = None
        if not record:
            return found, f"its service handle {name[:80]} is not held here"
        service = named_in(record)
        return Found(tuple(dict.fromkeys((*found.servers, *service.servers))), (), found.left_out + service.left_out), ""

    # ------------------------------------------------------------------------------------------------------------ probing
    def _begin(self, source: str, enterprise: Enterprise, check: Check) -> None:
        check.busy = True
        task = asyncio.create_task(self._probe(source, enterprise, check))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, source: str, enterprise: Enterprise, check: Check) -> None:
        began_ns = self._now_ns()
        answered: bool | None
        try:
            answered, why = await asked(check.server, enterprise.prefix)
        finally:
            check.busy = False
        now_ns = self._now_ns()
        if now_ns - began_ns > (PROBE_S_MAX + LATE_S_MAX) * NS:
            answered, why = None, "our own probe was late"
        check.probed(answered, why, began_ns, now_ns)
        pause_s = self.book.interval_s * self._chance.uniform(*EARLY)
        due_ns = began_ns + int((min(pause_s, AGAIN_S) if 0 < check.failures < FAILED_MIN else pause_s) * NS)
        self.book.wait(source, enterprise, check, due_ns)
        outcome = (source, "late" if answered is None else "answered" if answered else "failed")
        self.ended[outcome] = self.ended.get(outcome, 0) + 1

    # ------------------------------------------------------------------------------------------------------------ telling
    def _tell(self) -> None:
        now_ns = self._now_ns()
        self._told = [at_ns for at_ns in self._told if now_ns - at_ns < 60 * NS]
        for source, enterprise, failed in self.book.turned(now_ns):
            if len(self._told) >= EVENTS_PER_MINUTE_MAX:
                self._held_back += 1  # told in a later minute, if it is still so
                return
            self._told.append(now_ns)
            related, enterprise.told = enterprise.told, ""
            ident = self._teller.next_ident() if self._teller else f"{source}-{now_ns}"
            if failed:
                enterprise.told = ident
            word = f"failed: {enterprise.why}" if failed else "answers again"
            event = SecurityEvent(
                ident,
                Kind.SITE,
                State.ABNORMAL if failed else State.RECOVERED,
                time.time_ns() // 1_000_000,
                self._member.settings.name,
                "",
                f"the site of {enterprise.prefix}, an enterprise of {source}, {word}",
                max([check.failures for check in enterprise.checks.values()], default=0),
                related="" if failed else related,
                cause=Cause.NETWORK,
                suppressed=self._held_back,
            )
            self._held_back = 0
            if self._teller is not None:
                self._teller.tell(event)

    # ------------------------------------------------------------------------------------------------------------ looking
    def rows(self, source: str) -> list[dict[str, object]]:
        """One row an enterprise, for `zaibei tenant sites`."""
        now_ns, interval_s = self._now_ns(), self.book.interval_s
        enterprises = sorted(self.book.tenants.get(source, {}).items())
        for _, enterprise in enterprises:
            enterprise.judge(interval_s, now_ns)
        return [_row(enterprise, now_ns) for _, enterprise in enterprises]


async def asked(server: Server, prefix: str) -> tuple[bool, str]:
    """One probe over sockets of its own: was it answered, and how, or why not."""
    config = ClientConfig((), deadline_s=PROBE_S_MAX, udp_retry_s=RETRY_S)
    try:
        async with asyncio.timeout(PROBE_S_MAX), HandleClient(config) as client:
            reply = await client.ask(server, Question(f"0.NA/{prefix}"))
    except TimeoutError:
        return False, f"no answer within {PROBE_S_MAX} s"
    except ZaibeiError as exc:
        return False, exc.trouble.message
    except OSError as exc:
        return False, str(exc)
    return reply.code != Rc.ERROR, f"code {reply.code}"


def _row(enterprise: Enterprise, now_ns: int) -> dict[str, object]:
    checks = [
        {
            "server": str(check.server),
            "protocol": check.server.protocol,
            "family": "IPv6" if ":" in check.server.address else "IPv4",
            "health": check.health.value,
            "since_ms": (now_ns - check.since_ns) // 1_000_000,
            "why": check.refused or check.why,
            "probed": not check.refused,
        }
        for check in enterprise.checks.values()
    ]
    return {
        "prefix": enterprise.prefix,
        "health": enterprise.health.value,
        "since_ms": (now_ns - enterprise.since_ns) // 1_000_000,
        "why": enterprise.why,
        "checks": checks,
    }


class SiteCollector(Collector):
    """Metrics of a prober: counts by tenant, never an identifier."""

    def __init__(self, prober: SiteProber, registry: CollectorRegistry) -> None:
        self._prober, self._registry = prober, registry
        registry.register(self)

    def close(self) -> None:
        self._registry.unregister(self)

    def collect(self) -> Iterable[Metric]:
        book, now_ns = self._prober.book, time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        sites = GaugeMetricFamily(
            "zaibei_tenant_sites_count",
            "Enterprises of a tenant that is led here, by the health of their sites",
            labels=["source", "health"],
        )
        for source in sorted(book.tenants):
            for health, count in book.counts(source, now_ns).items():
                sites.add_metric([source, health.value.lower()], count)
        yield sites
        probes = CounterMetricFamily(
            "zaibei_tenant_site_probes", "Probes of enterprises' sites that ended", labels=["source", "outcome"]
        )
        for (source, outcome), count in sorted(self._prober.ended.items()):
            probes.add_metric([source, outcome], count)
        yield probes


def site_prober(prober: SiteProber, registry: CollectorRegistry, stack: AsyncExitStack) -> SiteProber:
    """The same, running and counted until the stack closes."""
    stack.callback(SiteCollector(prober, registry).close)
    stack.callback(asyncio.create_task(prober.run()).cancel)
    return prober
