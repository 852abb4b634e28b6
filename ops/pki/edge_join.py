"""A node takes up a token: keys made here, a certificate fetched, the file written. Whatever breaks off may be repeated."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from google.protobuf.message import DecodeError

from replica.enrol.edge_client import enrol, request_of
from replica.enrol.request import make_request
from replica.enrol.token import Token
from replica.model.edge_identity import CERTIFICATE_FILE, Identity, ensure_identity, key_pem, new_tls_key, write_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.trust import Authority, Claims
from replica.v1 import enrol_pb2

JOINING = "joining"  # beside the identity, until the certificate is there
ROOT_FILE, LIST_FILE = "ca.pem", "crl.pem"


@dataclass(frozen=True, slots=True)
class Pending:
    """Keys that wait for their certificate, and the request made for them: a token takes one request, and takes it again."""

    tls: ec.EllipticCurvePrivateKey
    signing: Ed25519PrivateKey
    request: enrol_pb2.CertificateRequest


def pending(folder: Path, token: Token) -> Pending:
    """Keys and request for a token: those of an earlier attempt where there was one. Raises ZaibeiError(DAMAGED)."""
    place = folder / f"{token.ticket.hex()}"
    files = [place / name for name in ("tls.key", "signing.key", "request")]
    if not all(file.exists() for file in files):
        tls, signing = new_tls_key(), Ed25519PrivateKey.generate()
        request = make_request(Claims(token.role, token.name), tls, signing)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file, octets in zip(files, (key_pem(tls), key_pem(signing), request.SerializeToString()), strict=True):
            write_secret(file, octets)
    try:
        tls_key, signing_key = (load_pem_private_key(file.read_bytes(), None) for file in files[:2])
        found = enrol_pb2.CertificateRequest.FromString(files[2].read_bytes())
    except (ValueError, DecodeError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"{place} is damaged ({exc}): remove it, and ask for a new token") from exc
    if not isinstance(tls_key, ec.EllipticCurvePrivateKey) or not isinstance(signing_key, Ed25519PrivateKey):
        raise ZaibeiError(Code.DAMAGED, f"{place} holds other keys than ours: remove it, and ask for a new token")
    return Pending(tls_key, signing_key, found)


async def fetch(
    data: Path, token: Token, member: enrol_pb2.JoiningMember | None = None
) -> tuple[Identity, enrol_pb2.EnrolResponse]:
    """Take up a token: afterwards `data` holds `identity/`, the CA and its list.

    Args:
        data: data folder of the source or member; it has no identity yet.
    Raises:
        ZaibeiError: see replica.enrol.edge_client.enrol; nothing but pending keys is left behind, and it may be repeated.
        ZaibeiError(CONFLICT): there is an identity already.
    """
    folder = data / "identity"
    if (folder / CERTIFICATE_FILE).exists():
        raise ZaibeiError(Code.CONFLICT, f"{folder} holds an identity already: move it away, or name another folder")
    waiting = data / JOINING
    mine = pending(waiting, token)
    answer = await enrol(token, request_of(token, mine.request, member))
    check_answer(answer, token, mine)
    write_public(data / ROOT_FILE, answer.roots)
    write_public(data / LIST_FILE, answer.lists)
    write_identity(folder, answer.certificate, key_pem(mine.tls), key_pem(mine.signing))
    identity = ensure_identity(folder, token.name)
    for file in sorted(waiting.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    waiting.rmdir()
    return identity, answer


def check_answer(answer: enrol_pb2.EnrolResponse, token: Token, mine: Pending) -> None:
    """What came is for our keys and of the token's CA. Raises ZaibeiError(VERIFICATION_FAILED)."""
    try:
        leaf = x509.load_pem_x509_certificates(answer.certificate)[0]
        Authority.parse([answer.roots], [answer.lists])
        prints = {sha256(one.public_bytes(Encoding.DER)).digest() for one in x509.load_pem_x509_certificates(answer.roots)}
    except (ValueError, ZaibeiError) as exc:
        raise ZaibeiError(Code.VERIFICATION_FAILED, f"what the member sent does not parse: {exc}") from exc
    if leaf.public_key() != mine.tls.public_key() or token.authority not in prints:
        raise ZaibeiError(
            Code.VERIFICATION_FAILED, "the member sent a certificate for another key, or of another CA than the token's"
        )


def source_text(token: Token, answer: enrol_pb2.EnrolResponse, data: str, inputs: Sequence[str], listen: Sequence[str]) -> str:
    """The source's file, whole. Pure.

    Args:
        data: its data folder as the file shall name it; inputs: registry files; listen: where it listens, if it is called.
    """
    lines = ["[source]", f"name = {json.dumps(token.name)}", f"prefixes = {json.dumps(list(answer.prefixes))}"]
    lines += [f"data = {json.dumps(data)}", "", "[pki]  # members of this CA may copy us"]
    lines += [f"roots = {json.dumps([f'{data}/{ROOT_FILE}'])}", f"crl = {json.dumps([f'{data}/{LIST_FILE}'])}"]
    lines += [f'cluster = "{answer.cluster.hex()}"'] if answer.cluster else []
    lines += [f"reach = {json.dumps(list(token.addresses))}  # where the certificate is renewed: zaibei pki renew --source"]
    if answer.pull:
        lines += ["", "[serve]", f"listen = {json.dumps(list(listen or answer.pull))}"]
    for member in answer.members:
        lines += ["", "[[member]]", f"name = {json.dumps(member.name)}"]
        if not answer.pull and member.feeds:
            feeds = list(member.feeds)
            lines += [f"push = {json.dumps(feeds if len(feeds) > 1 else feeds[0])}"]
    for path in inputs:
        lines += ["", "[[input]]", f"path = {json.dumps(path)}"]
    return "\n".join(lines) + "\n"


def write_secret(path: Path, octets: bytes) -> None:
    """Mode 0600, on the disk when it returns; an earlier half of one is replaced."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(octets)
        out.flush()
        os.fsync(out.fileno())


def write_public(path: Path, octets: bytes) -> None:
    """Whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(octets)
    os.replace(beside, path)
