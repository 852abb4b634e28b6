"""A data folder becomes a member: the first one of a new cluster, or one that joins with a token.

Each step may be the last before a crash: the card is written at the very end, and everything before it can be done again.
Data that is there is not touched: a member by itself that begins a cluster keeps identity keys, lineage, journal and stores.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ops.config.values import IDENTITY_FOLDER, LOCK_FILE
from ops.machine import FolderLock, prepare_folder
from ops.pki.edge_folder import CERTIFICATE_DAYS, DAY_S, KEY_FILE, ROOT_FILE, PkiFolder
from replica.cluster.card import Card, CardMember, decode_card
from replica.cluster.edge_card import LINEAGE_FILE, read_card, read_lineage, write_card, write_lineage
from replica.cluster.edge_keep import FOLDER, FileKeep
from replica.cluster.state import FIRST_MEMBER, ID_OCTETS
from replica.enrol.edge_client import enrol, request_of
from replica.enrol.request import make_request
from replica.enrol.token import Token
from replica.model.edge_audit_keys import AUDIT_KEY_FILE, ensure_audit_keys
from replica.model.edge_identity import (
    CERTIFICATE_FILE,
    ensure_identity,
    key_pem,
    new_tls_key,
    replace_certificate,
    write_identity,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.trust import Claims, Role, claims_of
from replica.v1 import enrol_pb2

PKI_FOLDER = "pki"  # below the data folder: the CA's certificate and list, at the first member its key too
JOIN_FOLDER = "join"  # below the cluster's folder, while a join is under way
PINNED_FILE = "certificate.pinned.pem"  # the certificate from before the cluster: what sources may have pinned
DATA_FOLDERS = ("journal", "sources", "stores", LINEAGE_FILE)


@dataclass(frozen=True, slots=True)
class Begun:
    """What was made.

    Args:
        kept: there was data already; made_ca: a new CA, in `pki`; pinned: file of the earlier certificate, "": none.
        names: what the certificate must say, where another CA than ours signs it; empty: it is signed.
    """

    card: Card
    kept: bool
    made_ca: bool
    pki: str
    pinned: str = ""
    names: tuple[str, ...] = ()


def begin_cluster(data: Path, name: str, links: tuple[str, ...], ca: PkiFolder | None, *, own_ca: bool = False) -> Begun:
    """Make a data folder, new or of a member by itself, the first member of a new cluster.

    Args:
        links: host:port where others reach it.
        ca: the CA that is here already; None: one is made in the data folder, unless `own_ca`: certificates come from elsewhere.
    Raises:
        ZaibeiError(CONFLICT): a member runs on it, or it belongs to a cluster already; nothing was changed.
    """
    prepare_folder(data)
    lock = FolderLock(data / LOCK_FILE)
    lock.take()
    try:
        _refuse_card(data)
        kept = (data / LINEAGE_FILE).exists()
        identity = ensure_identity(data / IDENTITY_FOLDER, name)
        lineage = read_lineage(data) or os.urandom(ID_OCTETS)
        write_lineage(data, lineage)
        ensure_audit_keys(data / IDENTITY_FOLDER / AUDIT_KEY_FILE)
        card = Card(os.urandom(ID_OCTETS), lineage, FIRST_MEMBER, name, (CardMember(FIRST_MEMBER, name, links),))
        claims = Claims(Role.MEMBER, name, FIRST_MEMBER, card.cluster)
        if ca is None and own_ca:
            write_card(data, card)
            return Begun(card, kept, False, "", names=claims.uris())
        pki, made_ca = (ca, False) if ca is not None else _authority(data / PKI_FOLDER, name)
        pinned = _keep_pinned(data / IDENTITY_FOLDER, identity.certificate_pem)
        key = load_pem_private_key(identity.tls_key_pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ZaibeiError(Code.DAMAGED, f"the TLS key in {data / IDENTITY_FOLDER} is no ECDSA key")
        chain = pki.issue_for(claims, key.public_key(), identity.signer.public, CERTIFICATE_DAYS * DAY_S)
        replace_certificate(data / IDENTITY_FOLDER, chain, identity.tls_key_pem)
        write_card(data, card)
        return Begun(card, kept, made_ca, str(pki.path), pinned)
    finally:
        lock.release()


def _refuse_card(data: Path) -> None:
    card = read_card(data)
    if card is not None:
        raise ZaibeiError(
            Code.CONFLICT,
            f"{data} is member {card.number} ({card.name}) of the cluster {card.cluster.hex()} already. Next: zaibei up",
        )


def _authority(folder: Path, name: str) -> tuple[PkiFolder, bool]:
    """The CA of the data folder; a new one when there is none, or not the whole of one."""
    if (folder / ROOT_FILE).exists():
        return PkiFolder(folder), False
    (folder / KEY_FILE).unlink(missing_ok=True)  # of a crash: without its certificate nothing was ever signed with it
    return PkiFolder.create(folder, f"zaibei cluster of {name}"), True


def _keep_pinned(folder: Path, certificate_pem: bytes) -> str:
    """A self-signed certificate is kept beside: sources may have pinned it."""
    leaf = x509.load_pem_x509_certificate(certificate_pem)
    path = folder / PINNED_FILE
    if leaf.issuer == leaf.subject and not path.exists():
        FileKeep(path).write(certificate_pem)
    return str(path) if path.exists() else ""


async def join_cluster(data: Path, token: Token, zone: str, links: tuple[str, ...], feeds: tuple[str, ...]) -> Card:
    """Fetch certificate and card with a token into an empty data folder. The same command again goes on where it was.

    Raises:
        ZaibeiError(CONFLICT): the folder holds data, an identity or another card; UNREACHABLE: nobody answers, nothing was used
            up; NOT_AUTHORISED: the token is not good, or somebody else answers.
    """
    if token.role is not Role.MEMBER:
        raise ZaibeiError(Code.MALFORMED, f"that token is for a {token.role}. Next: zaibei {token.role} join TOKEN")
    prepare_folder(data)
    lock = FolderLock(data / LOCK_FILE)
    lock.take()
    try:
        _refuse_card(data)
        _refuse_data(data)
        keys, request = _request(data, token, zone, links, feeds)
        response = await enrol(token, request)
        card = _checked(response, token, keys)
        _put(data, response, keys, card)
        return card
    finally:
        lock.release()


def _refuse_data(data: Path) -> None:
    """A member that joins starts empty: what is here would be another lineage's, or a forgotten promise."""
    begun = (data / FOLDER / JOIN_FOLDER).exists()  # the lineage may be of a join that was interrupted
    there = [name for name in DATA_FOLDERS if (data / name).exists() and not (begun and name == LINEAGE_FILE)]
    if there:
        raise ZaibeiError(
            Code.CONFLICT,
            f"{data} holds data already ({', '.join(there)}). Next: name an empty folder with --data, or move it away",
        )


@dataclass(frozen=True, slots=True)
class _Keys:
    """A new member's keys, secret."""

    tls: ec.EllipticCurvePrivateKey
    signing: Ed25519PrivateKey

    def __repr__(self) -> str:
        return "_Keys(...)"


def _request(
    data: Path, token: Token, zone: str, links: tuple[str, ...], feeds: tuple[str, ...]
) -> tuple[_Keys, enrol_pb2.EnrolRequest]:
    """Keys and request, on the disk before anything is sent: a token answers the same request again, and no other."""
    folder = data / FOLDER / JOIN_FOLDER
    tls, signing, sent = (FileKeep(folder / file) for file in ("tls.key", "signing.key", "request"))
    octets = sent.read()
    if octets is not None:
        request = enrol_pb2.EnrolRequest.FromString(octets)
        keys = _Keys(_tls(tls.read()), _signing(signing.read()))
        if request.ticket == token.ticket:
            return keys, request
    else:
        keys = _Keys(new_tls_key(), Ed25519PrivateKey.generate())
        tls.write(key_pem(keys.tls))
        signing.write(key_pem(keys.signing))
    member = enrol_pb2.JoiningMember(zone=zone, links=links, feeds=feeds)
    request = request_of(token, make_request(Claims(Role.MEMBER, token.name, FIRST_MEMBER), keys.tls, keys.signing), member)
    sent.write(request.SerializeToString())
    return keys, request


def _tls(octets: bytes | None) -> ec.EllipticCurvePrivateKey:
    key = _loaded(octets)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _half()
    return key


def _signing(octets: bytes | None) -> Ed25519PrivateKey:
    key = _loaded(octets)
    if not isinstance(key, Ed25519PrivateKey):
        raise _half()
    return key


def _loaded(octets: bytes | None) -> object:
    try:
        return load_pem_private_key(octets or b"", None)
    except ValueError:
        raise _half() from None


def _half() -> ZaibeiError:
    return ZaibeiError(
        Code.DAMAGED, "the join that was begun here left no keys. Next: delete the data folder, and join with a new token"
    )


def _checked(response: enrol_pb2.EnrolResponse, token: Token, keys: _Keys) -> Card:
    """The card of an answer that fits the token, our keys and itself."""
    try:
        leaf = x509.load_pem_x509_certificate(response.certificate)
        roots = x509.load_pem_x509_certificates(response.roots)
    except ValueError as exc:
        raise ZaibeiError(Code.MALFORMED, f"the answer holds no certificates: {exc}") from exc
    claims, card = claims_of(leaf), decode_card(response.card, "the card that was sent")
    fits = (
        leaf.public_key() == keys.tls.public_key()
        and any(root.fingerprint(SHA256()) == token.authority for root in roots)
        and (claims.role, claims.name, claims.number) == (Role.MEMBER, token.name, response.number)
        and (card.number, card.name) == (response.number, token.name)
        and claims.cluster == card.cluster == response.cluster
    )
    if not fits:
        raise ZaibeiError(
            Code.NOT_AUTHORISED, "the answer names another member, cluster, key or CA than the token. Next: ask for a new token"
        )
    return card


def _put(data: Path, response: enrol_pb2.EnrolResponse, keys: _Keys, card: Card) -> None:
    """Identity, CA, lineage, then the card."""
    folder = data / IDENTITY_FOLDER
    certificate = folder / CERTIFICATE_FILE
    if not certificate.exists() or certificate.read_bytes() != response.certificate:  # otherwise written before a crash
        write_identity(folder, response.certificate, key_pem(keys.tls), key_pem(keys.signing))
    FileKeep(data / PKI_FOLDER / ROOT_FILE).write(response.roots)
    write_lineage(data, card.lineage)
    write_card(data, card)
    for file in ("request", "tls.key", "signing.key"):
        (data / FOLDER / JOIN_FOLDER / file).unlink(missing_ok=True)
    (data / FOLDER / JOIN_FOLDER).rmdir()
