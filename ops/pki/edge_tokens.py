"""Gives out one-time tokens at the member that has the CA; only a hash of the secret stays here."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes

from ops.config import MemberConfig
from ops.pki.edge_own import ca_of, is_of_ca
from replica.enrol.tickets import Ticket, secret_hash
from replica.enrol.token import SECRET_OCTETS, TICKET_OCTETS, Token
from replica.model.edge_identity import CERTIFICATE_FILE, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.trust import Role

HOURS = 24


def give_out(
    config: MemberConfig,
    role: Role,
    name: str,
    *,
    prefixes: Sequence[str] = (),
    pull: Sequence[str] = (),
    hours: float = HOURS,
) -> Token:
    """A token for one holder of one role and name, remembered until it was used or ended.

    Raises:
        ZaibeiError(NOT_FOUND): the CA is not at this member; says where. ZaibeiError(CONFLICT): this member could not be
        recognised by who gets the token, or nobody could reach it.
    """
    ca = ca_of(config.pki)
    folder = config.member.identity_folder
    now_s = time.time()
    if not (folder / CERTIFICATE_FILE).exists() or not is_of_ca(
        ensure_identity(folder, config.member.name), ca.roots_pem(), now_s
    ):
        raise ZaibeiError(Code.CONFLICT, "this member has no certificate of the CA. Next: zaibei pki renew, then restart it")
    addresses = tuple(str(address) for address in (config.pki.reach or config.pki.enrol) if address.port and not address.is_any)
    if not addresses:
        raise ZaibeiError(
            Code.CONFLICT, "no address to put into a token. Next: [pki] reach, as the other side reaches this member"
        )
    ident, secret = secrets.token_bytes(TICKET_OCTETS), secrets.token_bytes(SECRET_OCTETS)
    expires_s = int(now_s + hours * 3_600)
    ca.put(Ticket(ident, secret_hash(secret), role, name, expires_s, tuple(prefixes), tuple(pull)))
    return Token(addresses, ca.root.fingerprint(hashes.SHA256()), ident, secret, role, name, expires_s)
