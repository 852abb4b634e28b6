"""A running process: the member, the fronts that answer for it, the admin channel and metrics. Composed here, decided nowhere.

Way of a start: fronts listen (and answer "starting, ask another site") -> our own site is known -> the member opens and replays
-> answers. With `fronts = N` the same fronts run in N processes of their own and reach the stores over a socket; they outlive us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from hosting.answer.port import Found, Wants
from hosting.client.edge_answers import answers
from hosting.front.connections import StreamLimits
from hosting.front.edge_files import KEPT
from hosting.front.edge_front import Bound as FrontBound
from hosting.front.edge_front import Front, FrontConfig
from hosting.front.edge_metrics import FrontCollector
from hosting.front.edge_port_server import PortServer, PortServerSettings
from hosting.front.edge_site_key import SITE_KEY_FILE, SiteKey, ensure_site_key
from hosting.front.service import FrontService
from hosting.guard.edge_teller import Teller, places_of
from hosting.guard.guard import Guard
from hosting.guard.guesses import Guesses
from hosting.guard.watch import BAD_CERTIFICATE, TWO_SENDERS
from hosting.handle.edge_registrar import Registrar
from hosting.tenant.edge_views import TenantViews
from ops.admin.edge_server import AdminServer
from ops.calls import MemberCalls
from ops.cluster.desk import ClusterDesk
from ops.cluster.edge_invite import ClusterAdmission, PkiInviter
from ops.cluster.edge_others import OtherMembers
from ops.cluster.edge_running import RunningCluster, health_of
from ops.config import Address, MemberConfig
from ops.config.values import Source, TakeoverPolicy
from ops.enrolling import Enrolment
from ops.fronts import FrontProcesses
from ops.https import https_places, tls_files
from ops.metrics import MetricsServer, watch_loop
from ops.mirror import Sampler
from ops.pki.edge_own import ALONE, ca_of, trust_files
from ops.publishing import publishers_of
from ops.registering import book_of_refusals, registrar_of, registration_port, tenant_views
from ops.seat import Seat
from ops.sites import SiteProber, site_prober
from replica.cluster.edge_card import read_card
from replica.enrol.port import Centre
from replica.feed.findings import RpoTarget
from replica.member.member import Member
from replica.member.settings import MB, ClusterSettings, MemberSettings, SourceSettings
from replica.model.audit_seal import NO_KEYS, AuditKeys
from replica.model.catalog import Catalog
from replica.model.edge_audit_keys import AUDIT_KEY_FILE, ensure_audit_keys, load_audit_keys
from replica.model.edge_collector import settle
from replica.model.edge_identity import Identity
from replica.model.edge_trust import LiveTrust
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import Interface, InterfaceUse, Protocol, encode_site, site_of
from replica.model.identity import Pins
from replica.model.node import Endpoint
from replica.model.trust import Role

SWITCH_INTERVAL_S = 0.0005  # a thread that computes gives way to an answer within half a millisecond
SHADOW_PREFIX = "0.ZAIBEI.DRILL"

log = logging.getLogger("zaibei.ops")


class MemberPort:
    """The answer port over a member in this process. Satisfies hosting.answer.port.AnswerPort."""

    def __init__(self) -> None:
        self.member: Member | None = None  # None while it starts
        self.registrar: Registrar | None = None  # None where no source lives

    def catalog(self) -> Catalog:
        if self.member is None:
            raise ZaibeiError(Code.STOPPING, "this member is starting", retry=True)
        return self.member.catalog()

    async def get_many(self, wants: Wants) -> Found:
        if self.member is None:
            raise ZaibeiError(Code.STOPPING, "this member is starting", retry=True)
        return await self.member.read_anywhere(wants)


async def run(config: MemberConfig, identity: Identity, seat: Seat) -> None:
    """Run one member until `seat.stop` is set (see ops/seat.py).

    Raises:
        ZaibeiError: it cannot start, or had to stop (failed disk); says what to do.
        OSError: an address cannot be bound.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    settle()
    async with contextlib.AsyncExitStack() as stack:
        port = MemberPort()
        teller = Teller(config.member.name, places_of(config.security.syslog, config.security.webhook))
        await teller.start()
        stack.push_async_callback(teller.stop)
        views = tenant_views(config.sources, port, stack)
        site_key, keys = await asyncio.to_thread(lambda: (ensure_site_key(key_path(config)), audit_keys(config)))
        fronts = await _start_fronts(config, port, views, seat, stack, teller, site_key)
        failure: list[BaseException] = []
        loop = asyncio.get_running_loop()

        def failed(error: BaseException) -> None:  # any thread
            failure.append(error)
            loop.call_soon_threadsafe(seat.stop.set)

        member = Member(member_settings(config, identity, fronts, site_key.public, keys), failed, seat.registry)
        member.refusals.told = lambda reason: teller.note(BAD_CERTIFICATE, b"", 1)
        member.on_twins = lambda told: teller.note(TWO_SENDERS, b"", 1)
        stack.push_async_callback(member.stop)
        await member.start()
        port.member = member
        await views.start()
        bound = {**fronts, "feed": _addresses(member.feed_addresses), "beats": _addresses(member.beat_addresses)}
        registration = registration_port(config.sources, member, identity)
        denials = book_of_refusals(config, keys, registration.offices, stack)
        stack.push_async_callback(registration.stop)
        await registration.start(_pairs(config.listen.registration))
        guesses = Guesses(note=teller.note)
        port.registrar = registrar_of(registration.offices, port, guesses, config.listen.basic_in_clear, site_key.private)
        bound["registration"] = [Address(*address) for address in registration.addresses]
        running = None if member.life is None else RunningCluster(member, member.life)
        enrolment = Enrolment(
            config,
            seat.origin,
            identity,
            lambda one: member.add_source(_source(one)),
            lambda: _centres(config, member, bound["feed"]),
            None if running is None else ClusterAdmission(config.member.data, running),
        )
        stack.push_async_callback(enrolment.stop)
        bound["enrol"] = await enrolment.start()
        if member.life is not None:
            bound["cluster"] = [Address(*address) for address in member.life.side.link_addresses]
            told = config.listen.registration and bound["registration"]
            member.life.side.tell_answers(tuple(str(one) for one in told or () if not one.is_any))
        metrics = MetricsServer(seat.registry, config.listen.metrics, lambda: health_of(member))
        bound["metrics"] = await metrics.start()
        stack.push_async_callback(metrics.stop)
        sampler = Sampler(lambda: member.copies)
        prober = site_prober(SiteProber(member, registration.offices, config.probes, teller), seat.registry, stack)
        admin = AdminServer(
            config.member.admin_socket,
            MemberCalls(config, member, seat, lambda: bound, sampler, registration.offices, denials, prober),
            None if running is None else ClusterDesk(running, LateInviter(config, lambda: bound.get("enrol", ()))),
            None if member.life is None else OtherMembers(member.life, config.member.name),
        )
        if member.life is not None and admin.handing is not None:
            member.life.operator = admin.handing.handed
        await admin.start()
        stack.push_async_callback(admin.stop)
        _beside(stack, sampler.run(), watch_loop(seat.registry))
        settle()
        seat.ready(bound)
        await seat.stop.wait()
        port.member = None
        if failure:
            raise _as_end(failure[0])


def _beside(stack: contextlib.AsyncExitStack, *works: Coroutine[None, None, None]) -> None:
    """Run until the stack closes."""
    for work in works:
        stack.callback(asyncio.create_task(work).cancel)


def _as_end(failure: BaseException) -> BaseException:
    """That the member stopped is definite, whatever became of the batches in flight: exit 1, not 11."""
    if isinstance(failure, ZaibeiError):
        return ZaibeiError(failure.code, failure.trouble.message)
    return failure


# ------------------------------------------------------------------------------------------------------------- fronts
Fronts = dict[str, list[Address]]


async def _start_fronts(
    config: MemberConfig,
    port: MemberPort,
    views: TenantViews,
    seat: Seat,
    stack: contextlib.AsyncExitStack,
    teller: Teller,
    key: SiteKey,
) -> Fronts:
    listen = config.listen
    handle, http, https, grpc = (_pairs(one) for one in (listen.handle, listen.http, listen.https, listen.grpc))
    tls = tls_files(config)
    if not listen.fronts:
        handle = _same_port_twice(handle)
        limits, kept = StreamLimits(config.limits.connections_max), KEPT + config.limits.open_files
        places = FrontConfig(handle, handle, http, grpc, https, tls, stream_limits=limits, files_kept=kept)
        guard = Guard(config.guard, teller.note)
        registrar = lambda: port.registrar  # noqa: E731
        service = FrontService(views, waiting_max=places.waiting_max, registrar=registrar, guard=guard, site_key=key)
        front = Front(views, places, service)
        bound = await front.start()
        stack.push_async_callback(front.stop)
        stack.callback(FrontCollector(front, seat.registry, teller.counters).close)
        return _bound(bound)
    if any(number == 0 for _, number in (*handle, *http, *https, *grpc)):
        raise ZaibeiError(
            Code.INVALID_CONFIG, "fronts share their addresses: give [listen] handle, http, https and grpc real ports, not 0"
        )
    fronts = FrontProcesses(
        config.member.data,
        listen.fronts,
        {
            "udp": handle,
            "tcp": handle,
            "http": http,
            "grpc": grpc,
            "reuse_port": True,
            "guard": asdict(config.guard),
            "security": _security(config),
            "site_key": (str(key_path(config)), key.mark),
        }
        | https_places(https, tls),
        _pairs(listen.metrics),
    )
    server = PortServer(views, PortServerSettings(fronts.socket))
    await server.start()
    stack.push_async_callback(server.stop)
    stack.push_async_callback(fronts.stop)
    await fronts.start()
    return {name: list(getattr(listen, name)) for name in ("handle", "http", "https", "grpc")}


def _security(config: MemberConfig) -> dict[str, object]:
    """Where a front tells events, as it reads it."""
    hook = config.security.webhook
    parts = hook and (hook.url, str(hook.secret_file), str(hook.ca_file or ""))
    return {"member": config.member.name, "syslog": config.security.syslog, "webhook": parts}


def _pairs(addresses: Sequence[Address]) -> tuple[tuple[str, int], ...]:
    return tuple((address.host, address.port) for address in addresses)


def _addresses(pairs: Sequence[tuple[str, int]]) -> list[Address]:
    return [Address(*pair) for pair in pairs]


def _same_port_twice(addresses: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """UDP and TCP share a port; a free one is chosen here, once for both."""
    chosen = []
    for host, number in addresses:
        if number == 0:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((host, 0))
                number = probe.getsockname()[1]
        chosen.append((host, number))
    return tuple(chosen)


def _bound(bound: FrontBound) -> Fronts:
    return {
        "handle": [Address(*address) for address in bound.tcp or bound.udp],
        "http": [Address(*address) for address in bound.http],
        "https": [Address(*address) for address in bound.https],
        "grpc": [Address(*address) for address in bound.grpc],
    }


# ------------------------------------------------------------------------------------------------------------- settings
def member_settings(
    config: MemberConfig,
    identity: Identity,
    bound: Mapping[str, Sequence[Address]],
    site_key: bytes = b"",
    keys: AuditKeys = NO_KEYS,
) -> MemberSettings:
    """The member's settings out of the configuration and what is really bound."""
    limits, site = config.limits, own_site(config, bound, site_key)
    return MemberSettings(
        name=config.member.name,
        data=config.member.data,
        machine=config.member.machine,
        identity=identity,
        sources=tuple(_source(source) for source in config.sources),
        feed_listen=_pairs(config.listen.feed),
        beats_listen=_pairs(config.listen.beats),
        own_site=site,
        publishers=publishers_of(config, identity.signer, site),
        shadow_prefix=SHADOW_PREFIX,
        issuers=config.issuers(),
        memory_octets=limits.memory_mb * MB,
        open_files=limits.open_files,
        journal_keep_octets=limits.journal_keep_mb * MB,
        disk_reserve_octets=limits.disk_reserve_mb * MB,
        scrub_days=limits.scrub_days,
        scrub_mb_s=limits.scrub_mb_s,
        trust_files=trust_files(config),
        ask=answers,
        cluster=_cluster(config),
        audit_keys=keys,
    )


def _centres(config: MemberConfig, member: Member, bound: Sequence[Address]) -> Sequence[Centre]:
    """The members that copy sources, this one first; of others what they told the cluster."""
    own = tuple(str(one) for one in config.pki.feeds or bound if not one.is_any)
    if member.life is None:
        return [Centre(config.member.name, ALONE, own)]
    side = member.life.side
    others = [Centre(one.name, one.number, one.feeds) for one in side.state.living() if one.number != side.me and one.feeds]
    return [Centre(config.member.name, side.me, own), *others]


def _cluster(config: MemberConfig) -> ClusterSettings | None:
    """The member's place in its cluster; without a card it works alone. Raises ZaibeiError."""
    card = read_card(config.member.data)
    if card is None:
        return None
    files = trust_files(config)
    if files is None:
        raise ZaibeiError(
            Code.INVALID_CONFIG,
            f"{config.member.data} belongs to a cluster, and [pki] names no CA. Next: zaibei config check says what to write",
        )
    return ClusterSettings(
        card=card,
        trusts=LiveTrust(Pins, files, frozenset({Role.MEMBER})),
        links_listen=_pairs(config.cluster.listen),
        reach=config.cluster.links(),
        zone=config.cluster.zone,
        replicas=config.cluster.replicas,
    )


class LateInviter:
    """Satisfies ops.cluster.port.Inviter: gives tokens where the CA's key is and its service listens."""

    def __init__(self, config: MemberConfig, enrolled: Callable[[], Sequence[Address]]) -> None:
        self._config, self._enrolled = config, enrolled

    async def invite(self, name: str, zone: str, replaces: int, valid_s: int) -> tuple[str, int]:
        """See Inviter."""
        config = self._config
        told = config.pki.reach or [one for one in self._enrolled() if not one.is_any]
        inviter = PkiInviter(config.member.data, ca_of(config.pki), lambda: tuple(map(str, told)))
        return await inviter.invite(name, zone, replaces, valid_s)


def _source(source: Source) -> SourceSettings:
    return SourceSettings(
        peer=source.peer,
        prefixes=source.prefixes,
        case_sensitive=source.case_sensitive,
        mode=source.mode,
        pull=tuple(str(address) for address in source.pull),
        horizon_ms=source.horizon_s * 1_000,
        rpo=RpoTarget(source.rpo_s * 1_000, source.rpo_changes),
        armed=source.armed,
        automatic=source.takeover is TakeoverPolicy.AUTOMATIC,
        operable=source.takeover is not TakeoverPolicy.NEVER,
        probe_name=source.probe_name,
        probes=tuple(Endpoint(one.protocol, one.address, one.port) for one in source.probes),
        registration_probes=tuple(Endpoint(one.protocol, one.address, one.port) for one in source.registration_probes),
        unavailable_ms=source.unavailable_s * 1_000,
        hosted=source.name if source.hosted else "",
    )


def audit_keys(config: MemberConfig) -> AuditKeys:
    """Keys of the audit's personal words. A member that works alone makes its own; a cluster's are put there."""
    path = config.member.identity_folder / AUDIT_KEY_FILE
    keys = load_audit_keys(path) if read_card(config.member.data) is not None else ensure_audit_keys(path)
    if not keys:
        log.warning(
            "no key of the audit is here: personal words are shown as masked, and stand plain in what this member decides",
            extra={"fields": {"file": str(path), "next": "the file of another member, mode 0600, and a restart"}},
        )
    return keys


def key_path(config: MemberConfig) -> Path:
    """Where the key of our site is."""
    return config.site.key_file or config.member.identity_folder / SITE_KEY_FILE


def own_site(config: MemberConfig, bound: Mapping[str, Sequence[Address]], public_key: bytes = b"") -> bytes:
    """HS_SITE of this cluster: TCP first (DOMAIN: the national clients take the first TCP interface), dual stack by alt_addr.

    An IPv4 address comes first where there is one; the site has one port per protocol, so addresses of the other family
    are published only when they listen on the same ports. The tunnel over TLS comes last: clients that take what comes first
    need no CA of ours.
    """
    handle, http, https = (list(bound.get(name, ())) for name in ("handle", "http", "https"))
    if config.site.addresses:
        first = config.site.addresses[0]
        handle_port = first.handle_port or (handle[0].port if handle else 0)
        http_port = first.http_port or (http[0].port if http else 0)
        https_port = first.https_port or (https[0].port if https else 0)
        hosts = [one.host for one in config.site.addresses]
    else:
        reachable = [address for address in handle if not address.is_any]
        if not reachable:
            return b""
        first_host = next((address for address in reachable if not address.is_ipv6), reachable[0])
        handle_port = first_host.port
        http_port, https_port = (next((one.port for one in of if one.host == first_host.host), 0) for of in (http, https))
        hosts = [first_host.host, *(one.host for one in reachable if one.port == handle_port and one.host != first_host.host)]
    interfaces = [
        Interface(InterfaceUse.QUERY, Protocol.TCP, handle_port),
        Interface(InterfaceUse.QUERY, Protocol.UDP, handle_port),
    ]
    for protocol, port in ((Protocol.HTTP, http_port), (Protocol.HTTPS, https_port)):
        if port:
            interfaces.append(Interface(InterfaceUse.QUERY, protocol, port))
    hosts.sort(key=lambda host: ":" in host)
    site = site_of(hosts, interfaces, serial=1, public_key=public_key, description=config.site.description)
    return encode_site(site)
