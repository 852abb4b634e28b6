"""Who is a member: pins with numbers, or certificates of the cluster's CA, as the process trusts them by now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from replica.consensus.link_port import Answerer, LinkKeys
from replica.model.edge_identity import Identity
from replica.model.edge_look import look
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Trusts

MEMBER = "member"  # the role


class TrustedMembers:
    """A MemberTrust out of a process's identity and trust.

    Args:
        trusts: whom the process lets in, by now.
    """

    def __init__(self, identity: Identity, trusts: Callable[[], Trusts]) -> None:
        self._identity, self._trusts = identity, trusts

    def member_of(self, chain_pem: Sequence[bytes]) -> tuple[int, str]:
        """Number and name of a member. Raises ZaibeiError(NOT_AUTHORISED)."""
        peer = self._peer(chain_pem)
        return peer.number, peer.name

    def _peer(self, chain_pem: Sequence[bytes]) -> Peer:
        peer = self._trusts().identify(chain_pem, time.time())
        if peer.role != MEMBER or not peer.number:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{peer.name!r} is no member of a cluster: its certificate opens other doors")
        return peer

    async def answerer(self, member: int, address: str) -> Answerer:
        """The certificate shown at the address becomes the only one that can answer the call, if it is this member's.

        Raises:
            ZaibeiError(NOT_AUTHORISED, UNREACHABLE).
        """
        peer = self._peer(await look(address))
        if peer.number != member:
            text = f"at {address} answers member {peer.number} ({peer.name}), not member {member}: correct its `reach`"
            raise ZaibeiError(Code.NOT_AUTHORISED, text)
        return Answerer(peer.certificate_pem, peer.issuers_pem)

    def credentials(self) -> LinkKeys:
        """Our own certificate as the files have it by now."""
        mine = self._identity.latest()
        return LinkKeys(mine.certificate_pem, mine.tls_key_pem, self._trusts().roots_pem())
