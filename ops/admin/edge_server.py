"""Serves AdminCalls on the Unix socket of a member's data folder."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from pathlib import Path
from typing import Any

from ops.admin.calls import CALLS, AdminCalls
from ops.admin.cluster_calls import CLUSTER_SIGNATURES, ClusterCalls, NoCluster
from ops.admin.codec import REQUEST_OCTETS_MAX, decode_request, encode_error, encode_result
from ops.admin.edge_socket import short_path
from ops.admin.handing import Handing, Others
from replica.model.errors import Code, InvariantBroken, Trouble, ZaibeiError

CONNECTIONS_MAX = 16
IDLE_S_MAX = 60.0
WRITE_S_MAX = 10.0
STOP_S_MAX = 5.0
LINGER_S_MAX = 1.0
READ_OCTETS = 64 * 1024
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of the peer

log = logging.getLogger("zaibei.admin")


def _may_steer(uid: int) -> bool:
    return uid in (0, os.getuid())


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: Trouble) -> None:
    """Say why, then read on for a moment: closing over unread octets would reset the connection before the answer is read."""
    writer.write(encode_error(0, refusal))
    writer.write_eof()
    async with asyncio.timeout(LINGER_S_MAX):
        while await reader.read(READ_OCTETS):
            pass


class AdminServer:
    """Answers one request after another on each connection. The data folder's lock must be held: a stale socket is replaced.

    Args:
        cluster: answers the cluster's calls; None: this member belongs to none.
        others: the other members, to which commands are handed on; None: this member is alone.
    """

    def __init__(self, path: Path, calls: AdminCalls, cluster: ClusterCalls | None = None, others: Others | None = None) -> None:
        self.path = path
        self.handing = None if others is None else Handing(others, self._here)
        self._call = self._here if self.handing is None else self.handing.call
        self._calls = calls
        self._cluster = cluster or NoCluster()
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        """Listen. Raises ZaibeiError when the socket cannot be made."""
        try:
            self.path.unlink(missing_ok=True)
            with short_path(self.path) as path:
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                mask = os.umask(0o177)  # the socket is 0600 from its first moment
                try:
                    listener.bind(path)
                finally:
                    os.umask(mask)
        except OSError as exc:
            raise ZaibeiError(
                Code.NOT_AUTHORISED, f"cannot make {self.path}: {exc.strerror}. Next: check the data folder's owner"
            ) from exc
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=REQUEST_OCTETS_MAX)

    async def stop(self) -> None:
        """Close the socket, let calls under way finish for a moment, and remove the file."""
        if self._server is None:
            return
        self._server.close()
        self.path.unlink(missing_ok=True)
        if self._open:
            await asyncio.wait(self._open, timeout=0.1)  # an answer to `stop` is still on its way
        for task, writer in list(self._open.items()):
            writer.transport.abort()
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=STOP_S_MAX)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            refusal = self._refusal(writer)
            while refusal is None:
                try:
                    async with asyncio.timeout(IDLE_S_MAX):
                        line = await reader.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    refusal = Trouble(Code.MALFORMED, f"a request is at most {REQUEST_OCTETS_MAX} octets")
                    break
                writer.write(await self._answer(line))
                async with asyncio.timeout(WRITE_S_MAX):
                    await writer.drain()
            await _refuse(reader, writer, refusal)
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            pass  # gone, silent or not reading: its own affair
        finally:
            del self._open[task]
            writer.close()

    def _refusal(self, writer: asyncio.StreamWriter) -> Trouble | None:
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid = _CREDENTIALS.unpack(raw)[1]
        if not _may_steer(uid):
            return Trouble(Code.NOT_AUTHORISED, f"user {uid} may not steer this member; its own user {os.getuid()} may")
        if len(self._open) > CONNECTIONS_MAX:
            return Trouble(Code.BUSY, f"{CONNECTIONS_MAX} admin connections are open already", retry=True)
        return None

    async def _answer(self, line: bytes) -> bytes:
        ident = 0
        try:
            request = decode_request(line)
            ident = request.ident
            return encode_result(ident, await self._call(request.call, dict(request.params)))
        except ZaibeiError as exc:
            return encode_error(ident, exc.trouble)

    async def _here(self, name: str, params: dict[str, Any]) -> Any:
        call = CALLS[name]
        if call.changes:
            log.info("operator call", extra={"fields": {"call": name}})
        try:
            async with asyncio.timeout(call.timeout_s):
                calls = self._cluster if name in CLUSTER_SIGNATURES else self._calls
                return await getattr(calls, name)(**params)
        except TimeoutError:
            raise ZaibeiError(
                Code.UNKNOWN if call.changes else Code.BUSY,
                f"{name} took over {call.timeout_s:.0f} s"
                + (": whether it was done is not known, look at the status" if call.changes else ""),
                definite=not call.changes,
                retry=not call.changes,
            ) from None
        except ZaibeiError:
            raise
        except Exception as exc:
            log.exception("a fault of ours in an admin call", extra={"fields": {"call": name}})
            if isinstance(exc, InvariantBroken):  # the loop's handler decides what becomes of the process
                asyncio.get_running_loop().call_exception_handler({"message": f"admin call {name}", "exception": exc})
            raise ZaibeiError(
                Code.UNKNOWN,
                f"{name} failed inside the member ({type(exc).__name__}: {exc}); its log has the details",
                definite=False,
            ) from exc
