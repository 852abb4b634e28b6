"""A process's own certificate of the CA: made here where the CA's folder is, renewed over the network elsewhere."""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.config import MemberConfig
from ops.config.values import PkiPart
from ops.pki.edge_folder import CERTIFICATE_DAYS, DAY_S, KEY_FILE, PkiFolder
from replica.enrol.request import raw
from replica.model.edge_identity import (
    CERTIFICATE_FILE,
    Identity,
    ensure_identity,
    key_pem,
    new_tls_key,
    replace_certificate,
    write_identity,
)
from replica.model.edge_trust import TrustFiles
from replica.model.errors import Code, ZaibeiError
from replica.model.trust import CLUSTER_OCTETS, Authority, Claims, Role, claims_of

CARD_FILE = Path("cluster") / "card.json"
ALONE = 1  # the number of a member without a cluster


class _Card(msgspec.Struct):
    cluster: str
    number: int


_decode = msgspec.json.Decoder(_Card).decode  # made once: see replica/store/state_row.py


def place_of(config: MemberConfig) -> tuple[int, bytes]:
    """Number and cluster of this member by its card; without one: number 1 of no cluster. Raises ZaibeiError(DAMAGED)."""
    path = config.member.data / CARD_FILE
    if not path.exists():
        return ALONE, b""
    try:
        card = _decode(path.read_bytes())
        cluster = bytes.fromhex(card.cluster)
        if len(cluster) != CLUSTER_OCTETS or card.number < 1:
            raise ValueError("no cluster and number")
        return card.number, cluster
    except (ValueError, msgspec.MsgspecError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"{path} is no card of a member ({exc}): restore it") from exc


def trust_files(config: MemberConfig) -> TrustFiles | None:
    """The CA's public files, and the cluster whose members count; None: pins alone."""
    if not config.pki.roots:
        return None
    return TrustFiles(config.pki.roots, config.pki.lists, place_of(config)[1])


def has_ca(pki: PkiPart) -> bool:
    """The CA's key is at this member."""
    return pki.folder is not None and (pki.folder / KEY_FILE).exists()


def ca_of(pki: PkiPart) -> PkiFolder:
    """The private CA at this member. Raises ZaibeiError(NOT_FOUND): it is at another; says which, as far as it is known."""
    if pki.folder is None or not has_ca(pki):
        where = (
            f"at the member behind {', '.join(map(str, pki.reach))}"
            if pki.reach
            else "at the member whose [pki] names its folder"
        )
        raise ZaibeiError(Code.NOT_FOUND, f"the CA's key is not at this member. Next: do this {where}")
    file = pki.passphrase_file
    return PkiFolder(pki.folder, None if file is None else lambda: file.read_bytes().strip())


def own_identity(config: MemberConfig) -> Identity:
    """The member's identity; made at the first start, by the CA where its folder is here, else self-signed."""
    folder = config.member.identity_folder
    if has_ca(config.pki) and not (folder / CERTIFICATE_FILE).exists():
        number, cluster = place_of(config)
        issue_into(ca_of(config.pki), folder, Claims(Role.MEMBER, config.member.name, number, cluster))
    return ensure_identity(folder, config.member.name)


def issue_into(ca: PkiFolder, folder: Path, claims: Claims, lasts_s: float = CERTIFICATE_DAYS * DAY_S) -> Identity:
    """A certificate of these claims into an identity's folder.

    Keys are made where there is no identity. Of one that is there the signing key stays, and its TLS key is replaced.
    """
    tls = new_tls_key()
    if (folder / CERTIFICATE_FILE).exists():
        signing = ensure_identity(folder, claims.name).signer.private
        replace_certificate(folder, ca.issue_for(claims, tls.public_key(), raw(signing), lasts_s), key_pem(tls))
    else:
        signing = Ed25519PrivateKey.generate()
        chain = ca.issue_for(claims, tls.public_key(), raw(signing), lasts_s)
        write_identity(folder, chain, key_pem(tls), key_pem(signing))
    return ensure_identity(folder, claims.name)


def is_of_ca(identity: Identity, roots_pem: bytes, now_s: float) -> bool:
    """Its certificate was signed by this CA, as a member's."""
    found = x509.load_pem_x509_certificates(identity.certificate_pem)
    try:
        Authority.parse([roots_pem]).chain(found[0], found[1:], now_s)
        return claims_of(found[0]).role is Role.MEMBER
    except ZaibeiError:
        return False
