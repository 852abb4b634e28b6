"""hosting.v1.Resolver: batches of identifiers for programs, columns in and columns out, with position and freshness.

A batch of 100 is one read of the port: the call itself (grpc.aio, about 200 µs) is paid once for all of them. Messages are
parsed and serialized by the generated code outside of any per-identifier object.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote

import grpc

from hosting.answer.heads import Heads
from hosting.answer.question import Answer, Question
from hosting.answer.resolve import NOTHING, answer_plan, answer_record, plan
from hosting.answer.standing import FOUND, NO_SUCH_NAME, TRY_ANOTHER, Standing, freshness_of, no_standing, standing_of
from hosting.front.edge_health import add_health
from hosting.front.lanes import Lane, held_back
from hosting.front.service import FrontService
from hosting.guard.clients import client_of
from hosting.v1 import resolve_pb2, resolve_pb2_grpc
from replica.model.errors import ZaibeiError
from replica.model.handle.codes import ResponseCode
from replica.model.identifier import NAME_OCTETS_MAX
from replica.model.states import Freshness
from replica.native import filter_values

IDENTIFIERS_MAX: Final = 1_000
FILTERS_MAX: Final = 2_048
REQUEST_OCTETS_MAX: Final = 4 * 1024 * 1024
RESPONSE_OCTETS_MAX: Final = 64 * 1024 * 1024
VALUES_OCTETS_MAX: Final = 32 * 1024 * 1024  # of one batch; identifiers beyond it are answered 2, ask them alone
VOUCHES_MAX: Final = 255
HANDSHAKE_MS_MAX: Final = 5_000  # a connection that does not begin to speak is closed
IDLE_MS_MAX: Final = 60_000  # as is one without a call; clients connect again by themselves
AGE_UNKNOWN: Final = 2**64 - 1

_WITH_VALUES: Final = (FOUND, int(ResponseCode.SERVICE_REFERRAL), int(ResponseCode.PREFIX_REFERRAL))
_FRESHNESS: Final = {
    Freshness.FRESH: resolve_pb2.Vouch.FRESHNESS_FRESH,
    Freshness.STALE_BOUNDED: resolve_pb2.Vouch.FRESHNESS_STALE_BOUNDED,
    Freshness.DEGRADED: resolve_pb2.Vouch.FRESHNESS_DEGRADED,
    Freshness.EXPIRED: resolve_pb2.Vouch.FRESHNESS_EXPIRED,
}


def vouch_of(standing: Standing) -> resolve_pb2.Vouch:
    """Who vouches, as a message; an empty source name where nobody does."""
    view = standing.view
    if view is None:
        return resolve_pb2.Vouch(age_ms=AGE_UNKNOWN)
    return resolve_pb2.Vouch(
        source=view.source,
        position=view.position.to_wire(),
        freshness=_FRESHNESS[freshness_of(view, standing.row)],
        age_ms=AGE_UNKNOWN if view.age_ms is None else view.age_ms,
        degraded=standing.row.degraded,
        authoritative=standing.row.authoritative,
    )


class _Batch:
    """The answers of one batch, filled in any order."""

    def __init__(self, names: Sequence[bytes], text: bytes = b"") -> None:
        self.codes = [TRY_ANOTHER] * len(names)
        self.values = [b""] * len(names)
        self.places = bytearray(len(names))
        self.vouches = [resolve_pb2.Vouch(age_ms=AGE_UNKNOWN)]
        self.text = text  # of the last answer without values: what a single resolution says
        self.octets = 0

    def vouched(self, standing: Standing) -> int:
        """Place of a source's vouch; 0 (nobody) when there are too many sources for one octet."""
        if len(self.vouches) > VOUCHES_MAX:
            return 0
        self.vouches.append(vouch_of(standing))
        return len(self.vouches) - 1

    def put(self, at: int, place: int, answer: Answer) -> None:
        """One answer."""
        code, octets = answer.code, answer.octets
        self.places[at] = place
        if code not in _WITH_VALUES:
            self.text = octets
        elif self.octets + len(octets) <= VALUES_OCTETS_MAX:
            self.values[at] = octets
            self.octets += len(octets)
        else:
            code = TRY_ANOTHER
        self.codes[at] = code


def host_of(peer: str) -> str:
    """The address in what gRPC calls a peer: `ipv4:192.0.2.1:5000`, `ipv6:%5B2001:db8::1%5D:5000`."""
    kind, _, place = peer.partition(":")
    return unquote(place).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


_Lane = Lane[tuple[int, bytes]]
"""The names of one batch that one source answers; of each its place, and the key part of its prefix."""


class Resolver(resolve_pb2_grpc.ResolverServicer):
    """The servicer; runs on the event loop of the front."""

    def __init__(self, service: FrontService) -> None:
        self._service = service
        self._heads = Heads()
        self.identifiers = 0

    async def Resolve(
        self, request: resolve_pb2.ResolveRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> resolve_pb2.ResolveResponse:
        batch = await self._answer([request.identifier.encode()], request.indexes, request.types, context)
        answer = resolve_pb2.Answer(
            response_code=batch.codes[0], values=batch.values[0], message=batch.text.decode("utf-8", "replace")
        )
        return resolve_pb2.ResolveResponse(answer=answer, vouch=batch.vouches[batch.places[0]])

    async def BatchResolve(
        self, request: resolve_pb2.BatchResolveRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> resolve_pb2.BatchResolveResponse:
        batch = await self._answer(request.identifiers[:], request.indexes, request.types, context)
        return resolve_pb2.BatchResolveResponse(
            response_codes=struct.pack(f">{len(batch.codes)}H", *batch.codes),
            values=batch.values,
            vouches=batch.vouches,
            vouch_places=bytes(batch.places),
        )

    async def _answer(
        self, names: Sequence[bytes], indexes: Sequence[int], types: Sequence[str], context: grpc.aio.ServicerContext[Any, Any]
    ) -> _Batch:
        if not 1 <= len(names) <= IDENTIFIERS_MAX or len(indexes) + len(types) > FILTERS_MAX:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"1 to {IDENTIFIERS_MAX} identifiers, and at most {FILTERS_MAX} indexes and types",
            )
        guard, host = self._service.guard, host_of(context.peer())
        if not guard.admits(host):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this network is refused")
        client = b"" if guard.trusts(host) else client_of(host)
        if client and guard.stream(client, len(names), int(time.monotonic())) < len(names):
            return _Batch(names, b"too many questions from your network; ask another site")
        batch = _Batch(names)
        if self._service.watch.paused():
            return _Batch(names, b"this member stood still; ask another site")
        self.identifiers += len(names)
        try:
            self._heads.catch_up(self._service.port.catalog())
            await self._read(names, Question(b"", tuple(indexes), tuple(name.encode() for name in types)), batch)
        except ZaibeiError as exc:
            return _Batch(names, f"{exc.trouble.message}; ask another site".encode())
        missing = batch.codes.count(NO_SUCH_NAME) if client else 0
        if missing:
            guard.missed(client, missing)
        return batch

    async def _read(self, names: Sequence[bytes], blank: Question, batch: _Batch) -> None:
        """Plan every name, read all keys at once, answer. `blank` carries the filters, which all names share."""
        lanes = self._plan(names, blank, batch)
        tenants, now_s = self._heads.catalog.tenants, asyncio.get_running_loop().time()
        for jobs, answer in held_back(lanes, self._service.guard, tenants, now_s):
            for at, _ in jobs:
                batch.put(at, 0, answer)
        wants = {source: lane.wants for source, lane in lanes.items()}
        found = await self._service.port.get_many(wants) if wants else {}
        for source, lane in lanes.items():
            values, view = found.get(source, ([], None))
            standing = no_standing(f"{source}: not held here") if view is None else standing_of(view)
            place = batch.vouched(standing)
            if standing.view is None:
                refusal = Answer(TRY_ANOTHER, standing.text.encode(), standing)
                for at, _ in (*lane.jobs, *(job for job, _ in lane.plans)):
                    batch.put(at, place, refusal)
                continue
            _put_records(batch, place, blank, lane, values, standing)
            start = len(lane.keys)
            for (at, _), todo in lane.plans:
                end = start + len(todo.keys)
                batch.put(at, place, answer_plan(blank, todo, values[start:end], standing, self._heads.catalog.own_site))
                start = end

    def _plan(self, names: Sequence[bytes], blank: Question, batch: _Batch) -> dict[str, _Lane]:
        lanes: dict[str, _Lane] = {}
        find, catalog = self._heads.find, self._heads.catalog
        now_ms = self._service.now_ms() if catalog.blocks else 0
        for at, name in enumerate(names):
            prefix, slash, suffix = name.partition(b"/")
            head = find(prefix)
            if head is not None and slash and len(name) <= NAME_OCTETS_MAX:
                lane = lanes.get(head.source)
                if lane is None:
                    lane = lanes[head.source] = Lane()
                lane.keys.append(head.start + (suffix.upper() if head.fold else suffix))
                lane.jobs.append((at, head.prefix))
                continue
            todo = plan(blank._replace(handle=name), catalog, now_ms)
            if isinstance(todo, Answer):
                batch.put(at, 0, todo)
            else:
                lanes.setdefault(todo.source, Lane()).plans.append(((at, todo.prefix), todo))
        return lanes


def _put_records(
    batch: _Batch, place: int, blank: Question, lane: _Lane, values: Sequence[bytes | None], standing: Standing
) -> None:
    """Answer the names that needed one key each; the plain case without an object for each of them."""
    plain = standing.row.found == FOUND and not blank.authoritative and not standing.blocks
    indexes, types, places, codes, out = blank.indexes, blank.types, batch.places, batch.codes, batch.values
    room = VALUES_OCTETS_MAX - batch.octets
    for (at, prefix), value, key in zip(lane.jobs, values, lane.keys, strict=False):
        octets = filter_values(value, indexes, types, True) if value and plain else None
        if octets is not None and octets != NOTHING and room >= len(octets):
            codes[at], out[at], places[at] = FOUND, octets, place
            room -= len(octets)
        else:
            batch.put(at, place, answer_record(blank, value, standing, prefix, key))
    batch.octets = VALUES_OCTETS_MAX - room


class GrpcFront:
    """A grpc.aio server with the Resolver, its health and reflection on it."""

    def __init__(
        self, service: FrontService, hosts: Sequence[tuple[str, int]], *, calls_max: int = 256, reuse_port: bool = False
    ) -> None:
        self.resolver = Resolver(service)
        self.addresses: list[tuple[str, int]] = []
        self._hosts = hosts
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=calls_max,
            options=[
                ("grpc.max_receive_message_length", REQUEST_OCTETS_MAX),
                ("grpc.max_send_message_length", RESPONSE_OCTETS_MAX),
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),
                ("grpc.max_connection_idle_ms", IDLE_MS_MAX),
            ],
        )
        resolve_pb2_grpc.add_ResolverServicer_to_server(self.resolver, self._server)
        self._health = add_health(self._server, service)
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises OSError: an address cannot be bound."""
        for host, port in self._hosts:
            literal = f"[{host}]" if ":" in host else host
            try:
                bound = self._server.add_insecure_port(f"{literal}:{port}")
            except RuntimeError as exc:
                raise OSError(f"cannot listen on {literal}:{port}: {exc}") from exc
            self.addresses.append((host, bound))
        await self._server.start()
        self._looking = asyncio.get_running_loop().create_task(self._health.run())

    async def stop(self, grace_s: float = 1.0) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._health.tell(False)  # who watches hears it before the port closes
        await asyncio.shield(self._server.stop(grace_s))
