"""The command line's end of the admin channel: blocking, one connection a command."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

from ops.admin.block_calls import BlockClient
from ops.admin.calls import CALLS
from ops.admin.cluster_calls import INVITE_VALID_S
from ops.admin.cluster_values import ClusterDone, ClusterPlan, ClusterStatus, Invitation
from ops.admin.codec import ANSWER_OCTETS_MAX, decode_answer, encode_request
from ops.admin.edge_socket import short_path
from ops.admin.failback_calls import FailbackClient
from ops.admin.ladder_calls import LadderClient
from ops.admin.move_calls import MoveClient
from ops.admin.proof_calls import ProofClient
from ops.admin.tenant_calls import TenantClient
from ops.admin.values import (
    Approval,
    Held,
    HoldDone,
    HoldPlan,
    Readiness,
    ReseedDone,
    ReseedPlan,
    Sample,
    SourceStatus,
    Status,
    Stopping,
)
from replica.model.errors import Code, ZaibeiError

CONNECT_S_MAX = 3.0
GRACE_S = 2.0  # beyond the member's own time limit
READ_OCTETS = 64 * 1024


class AdminClient(ProofClient, FailbackClient, LadderClient, TenantClient, BlockClient, MoveClient):
    """Calls a running member.

    Args:
        path: its socket.
    Raises (every call):
        ZaibeiError(UNREACHABLE): no member runs there; nothing was done.
        ZaibeiError(UNKNOWN): it went away during a call that changes something.
        ZaibeiError: whatever the member answered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket: socket.socket | None = None
        self._ident = 0

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def call(self, name: str, /, **params: Any) -> Any:
        """One call by name; the typed methods below are what commands use."""
        self._ident += 1
        line = encode_request(self._ident, name, params)
        connection = self._socket or self._connect()
        self._socket = connection
        try:
            connection.settimeout(CALLS[name].timeout_s + GRACE_S)
            connection.sendall(line)
            answer = self._read_line(connection)
        except OSError as exc:
            self.close()
            raise self._lost(
                name, "gave no answer in time" if isinstance(exc, TimeoutError) else f"went away ({exc.strerror})"
            ) from exc
        return decode_answer(answer, self._ident, name)

    def _read_line(self, connection: socket.socket) -> bytes:
        octets = bytearray()
        while not octets.endswith(b"\n"):
            part = connection.recv(READ_OCTETS)
            if not part:
                raise ConnectionResetError(errno.ECONNRESET, "connection closed")
            octets += part
            if len(octets) > ANSWER_OCTETS_MAX:
                raise ZaibeiError(Code.MALFORMED, f"the member answered more than {ANSWER_OCTETS_MAX} octets")
        return bytes(octets)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_S_MAX)
        try:
            with short_path(self.path) as path:
                connection.connect(path)
        except PermissionError as exc:
            connection.close()
            raise ZaibeiError(
                Code.NOT_AUTHORISED, f"{self.path} belongs to another user. Next: run this as the user the member runs as"
            ) from exc
        except OSError as exc:
            connection.close()
            raise ZaibeiError(
                Code.UNREACHABLE,
                f"no member runs on {self.path.parent}. Next: `zaibei up`, or name its folder with --data or --config",
                retry=True,
            ) from exc
        return connection

    def _lost(self, name: str, how: str) -> ZaibeiError:
        if CALLS[name].changes:
            return ZaibeiError(
                Code.UNKNOWN,
                f"the member {how} during {name}: whether it was done is not known. Next: `zaibei status`",
                definite=False,
            )
        return ZaibeiError(Code.UNREACHABLE, f"the member {how}. Next: try again, and look at its log", retry=True)

    def status(self) -> Status:
        answer: Status = self.call("status")
        return answer

    def sources(self) -> list[SourceStatus]:
        answer: list[SourceStatus] = self.call("sources")
        return answer

    def readiness(self, source: str = "") -> list[Readiness]:
        answer: list[Readiness] = self.call("readiness", source=source)
        return answer

    def metrics(self, prefix: str = "") -> list[Sample]:
        answer: list[Sample] = self.call("metrics", prefix=prefix)
        return answer

    def stop(self) -> Stopping:
        answer: Stopping = self.call("stop")
        return answer

    def holds(self, source: str = "") -> list[Held]:
        answer: list[Held] = self.call("holds", source=source)
        return answer

    def hold_show(self, hold: str) -> Held:
        answer: Held = self.call("hold_show", hold=hold)
        return answer

    def hold_plan(self, hold: str, decision: str) -> HoldPlan:
        answer: HoldPlan = self.call("hold_plan", hold=hold, decision=decision)
        return answer

    def hold_plan_of(self, token: str) -> HoldPlan:
        answer: HoldPlan = self.call("hold_plan_of", token=token)
        return answer

    def hold_sign(self, approval: Approval) -> HoldPlan:
        answer: HoldPlan = self.call("hold_sign", approval=approval)
        return answer

    def hold_run(self, token: str) -> HoldDone:
        answer: HoldDone = self.call("hold_run", token=token)
        return answer

    def reseed_plan(self, source: str) -> ReseedPlan:
        answer: ReseedPlan = self.call("reseed_plan", source=source)
        return answer

    def reseed_run(self, token: str) -> ReseedDone:
        answer: ReseedDone = self.call("reseed_run", token=token)
        return answer

    def grant_plan(self, source: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("grant_plan", source=source)
        return answer

    def grant_run(self, source: str, token: str, reason: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("grant_run", source=source, token=token, reason=reason)
        return answer

    def takeover_status(self, source: str = "") -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.call("takeover_status", source=source)
        return answer

    def takeover_plan(self, source: str, action: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("takeover_plan", source=source, action=action)
        return answer

    def takeover_run(self, source: str, action: str, token: str, reason: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("takeover_run", source=source, action=action, token=token, reason=reason)
        return answer

    def takeover_rehearse(self, source: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("takeover_rehearse", source=source)
        return answer

    def cluster_status(self) -> ClusterStatus:
        answer: ClusterStatus = self.call("cluster_status")
        return answer

    def cluster_invite(self, name: str, zone: str, valid_s: int) -> Invitation:
        answer: Invitation = self.call("cluster_invite", name=name, zone=zone, valid_s=valid_s)
        return answer

    def cluster_transfer(self, group: str, to: str) -> ClusterDone:
        answer: ClusterDone = self.call("cluster_transfer", group=group, to=to)
        return answer

    def cluster_drain(self, member: str, draining: bool) -> ClusterDone:
        answer: ClusterDone = self.call("cluster_drain", member=member, draining=draining)
        return answer

    def cluster_plan(self, action: str, member: str, group: str = "", fewer: bool = False) -> ClusterPlan:
        answer: ClusterPlan = self.call("cluster_plan", action=action, member=member, group=group, fewer=fewer)
        return answer

    def cluster_run(
        self,
        action: str,
        member: str,
        group: str = "",
        fewer: bool = False,
        token: str = "",
        reason: str = "",
        name: str = "",
        zone: str = "",
        valid_s: int = INVITE_VALID_S,
    ) -> ClusterDone:
        params = {"action": action, "member": member, "group": group, "fewer": fewer, "token": token, "reason": reason}
        answer: ClusterDone = self.call("cluster_run", **params, name=name, zone=zone, valid_s=valid_s)
        return answer
