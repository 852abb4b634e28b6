"""Tokens for members, given out where the CA's key lies; and the members that come with them, taken into the cluster."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from ops.cluster.invites import (
    INVITES_OCTETS_MAX,
    Invite,
    Invites,
    decode_invites,
    encode_invites,
    invite_of,
    with_invite,
)
from ops.cluster.port import ClusterLook, ClusterPort
from ops.pki.edge_folder import PkiFolder
from replica.cluster import entries
from replica.cluster.card import Card, CardMember, encode_card
from replica.cluster.edge_keep import FOLDER, FileKeep
from replica.cluster.state import FIRST_MEMBER, ControlState, MemberRecord, MemberState
from replica.enrol.port import AdmissionRequest, AdmissionResult
from replica.enrol.tickets import Ticket, secret_hash
from replica.enrol.token import SECRET_OCTETS, TICKET_OCTETS, Token, encode_token
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import OutcomeKind
from replica.model.trust import Role

INVITES_FILE = "invites.json"
BEGUN_LOOK_S, BEGUN_LOOKS_MAX = 0.1, 50
_ADDING = threading.Lock()  # of this process, which alone owns the folder: two invitations at once take turns


class InviteFile:
    """The open invites of a data folder. Calls block."""

    def __init__(self, data: Path) -> None:
        self._keep = FileKeep(data / FOLDER / INVITES_FILE, INVITES_OCTETS_MAX)

    def read(self) -> Invites:
        octets = self._keep.read()
        return () if octets is None else decode_invites(octets, self._keep.place)

    def add(self, invite: Invite, now_ms: int) -> None:
        with _ADDING:
            self._keep.write(encode_invites(with_invite(self.read(), invite, now_ms)))


class PkiInviter:
    """Satisfies ops.cluster.port.Inviter.

    Args:
        addresses: `host:port` of this member's service of enrolment, as others reach it.
    """

    def __init__(self, data: Path, pki: PkiFolder, addresses: Callable[[], tuple[str, ...]]) -> None:
        self._file, self._pki, self._addresses = InviteFile(data), pki, addresses

    async def invite(self, name: str, zone: str, replaces: int, valid_s: int) -> tuple[str, int]:
        addresses = self._addresses()
        if not addresses:
            raise ZaibeiError(
                Code.REFUSED, "this member enrols nobody: it listens nowhere for that. Next: the addresses in [pki] of its file"
            )
        return await asyncio.to_thread(self._give, name, zone, replaces, valid_s, addresses)

    def _give(self, name: str, zone: str, replaces: int, valid_s: int, addresses: tuple[str, ...]) -> tuple[str, int]:
        self._pki.key()  # fails where the CA's key is not: nobody could sign what the token promises
        now_s = int(time.time())
        ident, secret = os.urandom(TICKET_OCTETS), os.urandom(SECRET_OCTETS)
        ends_s = now_s + valid_s
        self._file.add(Invite(name, zone, replaces, ends_s * 1_000), now_s * 1_000)
        self._pki.put(Ticket(ident, secret_hash(secret), Role.MEMBER, name, ends_s))
        authority = self._pki.root.fingerprint(hashes.SHA256())
        return encode_token(Token(addresses, authority, ident, secret, Role.MEMBER, name, ends_s)), ends_s * 1_000


class ClusterAdmission:
    """Commits a member that comes with a good token. Satisfies replica.enrol.port.Admission."""

    def __init__(self, data: Path, port: ClusterPort) -> None:
        self._file, self._port = InviteFile(data), port

    async def admit(self, request: AdmissionRequest) -> AdmissionResult:
        invite = invite_of(await asyncio.to_thread(self._file.read), request.name)
        if invite is None:
            raise ZaibeiError(Code.REFUSED, f"nobody invited {request.name}. Next: zaibei cluster invite {request.name}")
        act = _act(invite)
        look = await self._begun()
        number = request.number or look.state.given_by(act)
        if not number:
            record = MemberRecord(
                0, request.name, invite.zone or request.zone, links=request.links, feeds=request.feeds, replaces=invite.replaces
            )
            outcome = await self._port.propose(entries.admitted(act, self._port.now_ms(), record))
            if outcome.kind not in (OutcomeKind.APPLIED, OutcomeKind.ALREADY):
                raise ZaibeiError(Code.REFUSED, outcome.detail or "not taken", definite=outcome.kind is not OutcomeKind.UNKNOWN)
            look = await self._port.fresh()
            number = look.state.given_by(act)
        member = look.state.member(number or 0)
        if member is None or member.name != request.name or member.state is MemberState.REMOVED:
            raise ZaibeiError(Code.REFUSED, f"{request.name} is no member (any more). Next: zaibei cluster invite {request.name}")
        return AdmissionResult(member.number, encode_card(card_of(look.state, member)), look.state.cluster)

    async def _begun(self) -> ClusterLook:
        """The cluster, once the member that began it stands in it as number 1: nobody else may be given that number."""
        for _ in range(BEGUN_LOOKS_MAX):
            look = await self._port.fresh()
            if look.state.member(FIRST_MEMBER) is not None:
                return look
            await asyncio.sleep(BEGUN_LOOK_S)
        raise ZaibeiError(Code.UNREACHABLE, "the first member is not in its own cluster yet. Next: join again", retry=True)


def card_of(state: ControlState, member: MemberRecord) -> Card:
    """The card of a member, with where the others are by now."""
    known = tuple(CardMember(one.number, one.name, one.links) for one in state.living())
    return Card(state.cluster, state.lineage, member.number, member.name, known)


def _act(invite: Invite) -> str:
    """One admission for each invite, however often its token is shown."""
    shown = replace(invite, zone="")
    return f"join:{sha256(repr(shown).encode()).hexdigest()[:24]}"
