"""Serving files to other members: what is asked for is held still, read in threads, sent as far as there is credit.

Files are held while somebody reads them and `lease_s` longer, so that a member whose connection broke goes on where it was.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from replica.model.errors import Code, ZaibeiError
from replica.model.transfer import Manifest, TransferKind
from replica.transfer.edge_grpc import FORMAT, status_of
from replica.transfer.edge_metrics import TransferMetrics
from replica.transfer.edge_pace import Pace
from replica.transfer.edge_send import Context, HeldSet, ServeLimits, Serving, tell
from replica.transfer.ports import TRANSFER_OCTETS, Held, Holder, MemberTrust, Wanted, require_same_member
from replica.v1 import transfer_pb2, transfer_pb2_grpc


class TransferService(transfer_pb2_grpc.TransferServicer):
    """Make one a member; `close` it when the server has stopped.

    Args:
        cluster: 16 octets. source_of: a group's source; raises ZaibeiError(NOT_FOUND).
    """

    def __init__(
        self,
        holder: Holder,
        trust: MemberTrust,
        cluster: bytes,
        source_of: Callable[[int], str],
        *,
        pace: Pace | None = None,
        limits: ServeLimits | None = None,
        metrics: TransferMetrics | None = None,
    ) -> None:
        self._holder, self._trust, self._cluster, self._source_of = holder, trust, cluster, source_of
        self.pace, self.limits, self.metrics = pace or Pace(), limits or ServeLimits(), metrics
        self.threads = ThreadPoolExecutor(self.limits.threads, "zaibei-transfer-read")
        self._sets: dict[bytes, HeldSet] = {}
        self._making: dict[int, asyncio.Lock] = {}
        self._streams = 0
        self._closed = False

    # ------------------------------------------------------------------------------------------------- for the host
    async def hold(self, wanted: Wanted) -> tuple[bytes, Manifest]:
        """Hold files still for a member, before it asks; what others already read is shared where it will do.

        Each call is one claim on them: they go when each was released, or when nobody has read them for `lease_s`.

        Returns:
            The transfer's id, and what it holds.
        Raises:
            ZaibeiError: NOT_FOUND, BUSY, DISK_FULL, STOPPING, as the store failed.
        """
        lock = self._making.setdefault(wanted.group, asyncio.Lock())
        async with lock:  # two that ask at once share one
            found = self._shared(wanted) or await self._make(wanted)
        found.claims += 1
        self.rest(found)
        return found.transfer, found.manifest

    def _shared(self, wanted: Wanted) -> HeldSet | None:
        plain = replace(wanted, index_min=0)
        for one in self._sets.values():
            if replace(one.wanted, index_min=0) == plain and not wanted.mismatch(one.manifest):
                return one
        return None

    async def _make(self, wanted: Wanted) -> HeldSet:
        if self._closed:
            raise ZaibeiError(Code.STOPPING, "this member stops", retry=True)
        if len(self._sets) >= self.limits.held_max:
            raise ZaibeiError(Code.BUSY, f"{len(self._sets)} sets of files are held for other members: again later", retry=True)
        job = self.threads.submit(self._holder.hold, wanted)
        try:
            held = await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            job.add_done_callback(_let_go)  # who asked is gone, and nobody else knows of these files
            raise
        made = HeldSet(secrets.token_bytes(TRANSFER_OCTETS), wanted, held)
        if self._closed or (wrong := wanted.mismatch(held.manifest)):
            await asyncio.to_thread(held.release)
            if self._closed:
                raise ZaibeiError(Code.STOPPING, "this member stops", retry=True)
            raise ZaibeiError(Code.BUSY, f"not there yet: {wrong}", retry=True)
        self._sets[made.transfer] = made
        self._count()
        return made

    def rest(self, one: HeldSet) -> None:
        """Its lease begins anew; it ends when nobody reads."""
        if one.ends is not None:
            one.ends.cancel()
            one.ends = None
        if not one.readers and one.transfer in self._sets:
            one.ends = asyncio.get_running_loop().call_later(self.limits.lease_s, self._drop, one)

    def _drop(self, one: HeldSet) -> None:
        if one.readers or self._sets.pop(one.transfer, None) is None:
            return
        if one.ends is not None:
            one.ends.cancel()
        self.threads.submit(one.held.release)
        self._count()

    def _count(self) -> None:
        if self.metrics is not None:
            self.metrics.held.set(len(self._sets))

    async def close(self) -> None:
        """Let everything go; after the server was stopped. Idempotent."""
        self._closed = True
        for one in [*self._sets.values()]:
            one.readers = 0
            self._drop(one)
        await asyncio.to_thread(self.threads.shutdown)

    # ------------------------------------------------------------------------------------------------- service
    async def Manifest(self, request: transfer_pb2.ManifestRequest, context: Context) -> transfer_pb2.TransferManifest:
        try:
            member = self._caller(context)
            found = await self._answer(request, member)
        except ZaibeiError as exc:
            await self._refuse(context, exc)
        manifest = found.manifest
        return transfer_pb2.TransferManifest(
            format=FORMAT, cluster=self._cluster, group=request.group, transfer=found.transfer,
            manifest=manifest.encode(), sha256=manifest.sha256,
        )  # fmt: skip

    async def _answer(self, request: transfer_pb2.ManifestRequest, member: int) -> HeldSet:
        if request.format != FORMAT:
            raise ZaibeiError(Code.MALFORMED, f"format {request.format}: we read {FORMAT}")
        if request.cluster != self._cluster:
            text = f"cluster {request.cluster.hex()[:32]} is not ours: wrong address or wrong card"
            raise ZaibeiError(Code.NOT_AUTHORISED, text)
        require_same_member(member, request.member)
        source = self._source_of(request.group)
        match request.WhichOneof("what"):
            case "checkpoint":
                wanted = Wanted(request.group, source, TransferKind.CHECKPOINT, index_min=request.checkpoint.index_min)
            case "generation":
                named = request.generation
                wanted = Wanted(request.group, source, TransferKind.GENERATION, number=named.number, begun=named.begun)
            case "transfer":
                found = self.known(request.transfer)
                if found.wanted.group != request.group:
                    raise ZaibeiError(Code.NOT_FOUND, f"that transfer is not of group {request.group}")
                self.rest(found)
                return found
            case _:
                raise ZaibeiError(Code.MALFORMED, "the request names nothing")
        transfer, _ = await self.hold(wanted)
        return self.known(transfer)

    def known(self, transfer: bytes) -> HeldSet:
        """What is held under that name, for any member. Raises ZaibeiError(NOT_FOUND)."""
        found = self._sets.get(transfer)
        if found is None:
            raise ZaibeiError(Code.NOT_FOUND, "no such transfer here, or no more: ask for its manifest again")
        return found

    def _caller(self, context: Context) -> int:
        about = context.auth_context()
        chain = [bytes(pem) for part in ("x509_pem_cert", "x509_pem_cert_chain") for pem in about.get(part, [])]
        if not chain:
            raise ZaibeiError(Code.NOT_AUTHORISED, "files are served to members with a certificate alone")
        return self._trust.member_of(chain)[0]

    async def _refuse(self, context: Context, exc: ZaibeiError) -> None:
        if self.metrics is not None:
            self.metrics.refused.labels("serve", exc.code.value).inc()
        await context.abort(status_of(exc.trouble), str(exc))

    async def Release(self, request: transfer_pb2.ReleaseRequest, context: Context) -> transfer_pb2.ReleaseReply:
        try:
            self._caller(context)
            found = self.known(request.transfer)
        except ZaibeiError as exc:
            await self._refuse(context, exc)
        found.claims -= 1
        if found.claims <= 0:
            self._drop(found)
        return transfer_pb2.ReleaseReply()

    async def Read(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        del request_iterator  # read through the context: reading and writing do not wait for each other
        self._streams += 1
        self._note_streams()
        stream = None
        try:
            if self._streams > self.limits.streams_max:
                text = f"{self._streams - 1} streams of files are open: again later"
                raise ZaibeiError(Code.BUSY, text, retry=True)
            self._caller(context)
            stream = Serving(self, context)
            await stream.run()
        except ZaibeiError as exc:
            if exc.code is not Code.UNREACHABLE:
                await tell(context, exc)
            await self._refuse(context, exc)
        finally:
            self._streams -= 1
            self._note_streams()
            if stream is not None:
                stream.end()

    def _note_streams(self) -> None:
        if self.metrics is not None:
            self.metrics.streams.set(self._streams)


def _let_go(job: Future[Held]) -> None:
    if not job.cancelled() and job.exception() is None:
        job.result().release()
