"""Who a certificate is: the pins of before, and beside them a CA whose certificates carry role and name.

A certificate of the CA says in its names (URI) what it is:

    zaibei:member:3        and its common name is the member's name; zaibei:cluster:<32 hex digits> says of which cluster
    zaibei:source:node-a   and the same common name
    zaibei:operator:li     and the same common name

Pure: the files are read by edge_trust.py, the time is an argument.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError

from replica.model.errors import Code, ZaibeiError
from replica.model.identity import CHAIN_CERTIFICATES_MAX, SIGNING_KEY_OID, Peer, Pins, fingerprint

URI_SCHEME = "zaibei"
CLUSTER_OCTETS = 16
ROOTS_MAX = 64


class Role(StrEnum):
    """What a certificate may be used for; each role reaches its own services and nothing else."""

    MEMBER = "member"  # links and transfers between members; fetches from sources
    SOURCE = "source"  # its own feed
    OPERATOR = "operator"  # neither: a name for a person


@dataclass(frozen=True, slots=True)
class Claims:
    """What a certificate says its holder is. `number` and `cluster` for members; 0 and empty otherwise."""

    role: Role
    name: str
    number: int = 0
    cluster: bytes = b""

    def uris(self) -> tuple[str, ...]:
        """The names a certificate of this holder carries."""
        own = str(self.number) if self.role is Role.MEMBER else self.name
        cluster = (f"{URI_SCHEME}:cluster:{self.cluster.hex()}",) if self.cluster else ()
        return (f"{URI_SCHEME}:{self.role}:{own}", *cluster)


def claims_of(certificate: x509.Certificate) -> Claims:
    """Role, name, number and cluster. Raises ZaibeiError(NOT_AUTHORISED): the certificate says none, or contradicts itself."""
    name = common_name(certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError) as exc:
        raise _no(f"the certificate of {name!r} carries no names: it was not made for zaibei") from exc
    uris = [uri.split(":") for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith("zaibei:")]
    roles = [parts for parts in uris if len(parts) == 3 and parts[1] in set(Role)]
    clusters = [parts[2] for parts in uris if len(parts) == 3 and parts[1] == "cluster"]
    if len(roles) != 1 or len(clusters) > 1 or len(uris) != len(roles) + len(clusters):
        raise _no(f"the certificate of {name!r} must carry one role, like zaibei:source:{name}, and at most one cluster")
    role, own = Role(roles[0][1]), roles[0][2]
    cluster = _cluster(name, clusters[0]) if clusters else b""
    if role is not Role.MEMBER:
        if own != name:
            raise _no(f"the certificate of {name!r} names {own!r} as its {role}")
        return Claims(role, name, cluster=cluster)
    if not (own.isascii() and own.isdigit() and 1 <= int(own) < 2**32):
        raise _no(f"the certificate of member {name!r} has no number from 1")
    return Claims(role, name, int(own), cluster)


def _cluster(name: str, text: str) -> bytes:
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        octets = b""
    if len(octets) != CLUSTER_OCTETS:
        raise _no(f"the certificate of {name!r} names no cluster of {CLUSTER_OCTETS} octets")
    return octets


def common_name(certificate: x509.Certificate) -> str:
    """Raises ZaibeiError(NOT_AUTHORISED): not exactly one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise _no("a certificate names exactly one common name")
    return str(names[0].value)


def _no(why: str) -> ZaibeiError:
    return ZaibeiError(Code.NOT_AUTHORISED, why)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: self-signed roots, the intermediate certificates known here, and what was revoked."""

    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...] = ()
    lists: tuple[x509.CertificateRevocationList, ...] = ()

    @staticmethod
    def parse(roots_pem: Sequence[bytes], lists_pem: Sequence[bytes] = ()) -> Authority:
        """Read PEM files of certificates and of revocation lists.

        Raises:
            ZaibeiError(MALFORMED): no root, not PEM, or a list that none of these CAs signed.
        """
        found: list[x509.Certificate] = []
        for octets in roots_pem:
            try:
                found += x509.load_pem_x509_certificates(octets)
            except ValueError as exc:
                raise ZaibeiError(Code.MALFORMED, f"the CA's file holds no PEM certificates: {exc}") from exc
        roots = tuple(one for one in found if _signed_by(one, one))
        intermediates = tuple(one for one in found if one not in roots)
        if not roots or len(found) > ROOTS_MAX:
            raise ZaibeiError(Code.MALFORMED, f"a CA's files hold 1 to {ROOTS_MAX} certificates, one of them self-signed")
        lists = tuple(_list(octets, found) for octets in lists_pem)
        return Authority(roots, intermediates, lists)

    def roots_pem(self) -> bytes:
        return b"".join(one.public_bytes(Encoding.PEM) for one in (*self.roots, *self.intermediates))

    def chain(self, leaf: x509.Certificate, others: Sequence[x509.Certificate], now_s: float) -> list[x509.Certificate]:
        """The verified way from a certificate to a root. Raises ZaibeiError(NOT_AUTHORISED)."""
        any_critical = ExtensionPolicy.permit_all()
        verifier = (
            PolicyBuilder()
            .store(Store(list(self.roots)))
            .time(dt.datetime.fromtimestamp(now_s, dt.UTC))
            .max_chain_depth(CHAIN_CERTIFICATES_MAX)
            .extension_policies(
                ca_policy=any_critical.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_ca).may_be_present(
                    x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates
                ),
                ee_policy=any_critical.require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None).may_be_present(
                    x509.BasicConstraints, Criticality.AGNOSTIC, _is_no_ca
                ),
            )
            .build_client_verifier()
        )
        try:
            return verifier.verify(leaf, [*others, *self.intermediates]).chain
        except (VerificationError, ValueError) as exc:
            ends = leaf.not_valid_after_utc
            if ends.timestamp() <= now_s:
                raise _no(f"the certificate of {common_name(leaf)!r} ended at {ends:%Y-%m-%d %H:%M:%S} UTC: renew it") from exc
            why = str(exc).splitlines()[0][:200] if str(exc) else "no way to a root"
            raise _no(f"the certificate of {common_name(leaf)!r} is not of a CA trusted here ({why})") from exc

    def check_not_revoked(self, chain: Sequence[x509.Certificate]) -> None:
        """Look in every list of an issuer in the chain. Raises ZaibeiError(NOT_AUTHORISED)."""
        for certificate in chain:
            for one in self.lists:
                if one.issuer != certificate.issuer:
                    continue
                if one.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                    raise _no(f"certificate {certificate.serial_number:x} of {common_name(certificate)!r} is revoked")

    def outdated(self, now_s: float) -> tuple[str, ...]:
        """Issuers whose list says that a newer one should be here by now. What it names counts on."""
        return tuple(
            one.issuer.rfc4514_string()
            for one in self.lists
            if one.next_update_utc is not None and one.next_update_utc.timestamp() <= now_s
        )


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is not signed by that issuer
        return False
    return True


def _list(octets: bytes, issuers: Sequence[x509.Certificate]) -> x509.CertificateRevocationList:
    try:
        found = x509.load_pem_x509_crl(octets)
    except ValueError as exc:
        raise ZaibeiError(Code.MALFORMED, f"not a revocation list in PEM: {exc}") from exc
    for issuer in issuers:
        key = issuer.public_key()
        if issuer.subject == found.issuer and found.is_signature_valid(key):  # type: ignore[arg-type]
            return found
    raise ZaibeiError(Code.MALFORMED, f"the revocation list of {found.issuer.rfc4514_string()!r} is signed by no CA given here")


def _is_ca(_policy: Policy, _certificate: x509.Certificate, found: x509.BasicConstraints) -> None:
    if not found.ca:
        raise ValueError("an issuer in the chain is no CA")


def _is_no_ca(_policy: Policy, _certificate: x509.Certificate, found: x509.BasicConstraints | None) -> None:
    if found is not None and found.ca:
        raise ValueError("a CA's own certificate is no identity")


def _signs_certificates(_policy: Policy, _certificate: x509.Certificate, found: x509.KeyUsage | None) -> None:
    if found is not None and not found.key_cert_sign:
        raise ValueError("an issuer in the chain may not sign certificates")


@dataclass(frozen=True, slots=True)
class Trust:
    """Pins, a CA, or both. Satisfies replica.model.identity.Trusts.

    Args:
        pins: peers by exact certificate, and peers that are only named here (their prefixes) and known by the CA.
        roles: what may come in by the CA; a pinned peer is let in as what it is pinned as.
        cluster: members of another cluster are refused; empty: of any.
    """

    pins: Pins
    authority: Authority | None = None
    roles: frozenset[Role] = frozenset()
    cluster: bytes = b""

    def roots_pem(self) -> bytes:
        return self.pins.roots_pem() + (self.authority.roots_pem() if self.authority is not None else b"")

    def identify(self, chain_pem: Sequence[bytes], now_s: float) -> Peer:
        if self.authority is None:
            return self.pins.identify(chain_pem, now_s)
        try:
            return self._identify(self.authority, chain_pem, now_s)
        except ValueError as exc:  # parts of a certificate are parsed when they are read
            raise _no(f"what was presented is no sound certificate: {exc}") from exc

    def next_end_s(self, chain_pem: Sequence[bytes], now_s: float) -> float:
        """When the first certificate ends that a proof of this chain may rest on, Unix seconds; those that ended do not count."""
        leaf, others = _parse(chain_pem)
        issuers = (*self.authority.roots, *self.authority.intermediates) if self.authority is not None else ()
        # The second named in a certificate is its last one.
        ends = [one.not_valid_after_utc.timestamp() + 1 for one in (leaf, *others, *issuers)]
        return min((end for end in ends if end > now_s), default=now_s)

    def _identify(self, authority: Authority, chain_pem: Sequence[bytes], now_s: float) -> Peer:
        leaf, others = _parse(chain_pem)
        leaf_pem = leaf.public_bytes(Encoding.PEM)
        pinned = self.pins.by_certificate(leaf_pem)
        if pinned is not None:
            authority.check_not_revoked((leaf,))
            return self.pins.identify((leaf_pem,), now_s)
        chain = authority.chain(leaf, others, now_s)
        authority.check_not_revoked(chain)
        issuers_pem = b"".join(one.public_bytes(Encoding.PEM) for one in others)
        return replace(self._peer(claims_of(leaf), leaf, leaf_pem), issuers_pem=issuers_pem)

    def _peer(self, claims: Claims, leaf: x509.Certificate, leaf_pem: bytes) -> Peer:
        if claims.role not in self.roles:
            raise _no(f"{claims.name!r} is {_article(claims.role)}, which may do nothing here")
        if claims.role is Role.MEMBER and self.cluster and claims.cluster != self.cluster:
            raise _no(f"member {claims.name!r} belongs to another cluster")
        known = self.pins.named(claims.name, claims.role)
        if known is not None and known.certificate_pem:
            raise _no(f"{claims.role} {claims.name!r} is pinned here to {known.fingerprint}, not to {fingerprint(leaf_pem)}")
        if known is None and claims.role is Role.SOURCE:
            raise _no(f"no source {claims.name!r} is configured here: write its [[source]] block")
        try:
            leaf.extensions.get_extension_for_oid(SIGNING_KEY_OID)
            return replace(
                known or Peer(claims.name, b"", role=str(claims.role)),
                certificate_pem=leaf_pem,
                number=claims.number,
                cluster=claims.cluster,
            )
        except (x509.ExtensionNotFound, ValueError, ZaibeiError) as exc:
            raise _no(f"the certificate of {claims.name!r} carries no signing key of 32 octets: make it with zaibei") from exc


def _article(role: Role) -> str:
    return f"an {role}" if role is Role.OPERATOR else f"a {role}"


def _parse(chain_pem: Sequence[bytes]) -> tuple[x509.Certificate, list[x509.Certificate]]:
    if not chain_pem:
        raise _no("no certificate was presented")
    try:
        found = [one for octets in chain_pem for one in x509.load_pem_x509_certificates(octets)]
    except ValueError as exc:
        raise _no(f"what was presented is no certificate: {exc}") from exc
    if len(found) > CHAIN_CERTIFICATES_MAX:
        raise _no(f"a chain has at most {CHAIN_CERTIFICATES_MAX} certificates")
    return found[0], found[1:]
