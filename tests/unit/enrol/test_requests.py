"""Requests for certificates: both keys are shown to be there, and nothing else that is said is believed."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from replica.enrol.request import (
    check_renewal,
    check_request,
    csr_of,
    make_request,
    member_tls_name,
    raw,
    renewal_octets,
    signing_octets,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.trust import Claims, Role
from tests.unit.pki.authority import Company

CLAIMS = Claims(Role.SOURCE, "node-a")


@pytest.fixture
def keys() -> tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey]:
    return ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()


def test_a_request_shows_both_keys(keys: tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey]) -> None:
    tls, signing = check_request(make_request(CLAIMS, *keys), "node-a")
    assert (tls, signing) == (keys[0].public_key(), raw(keys[1]))


def test_a_key_that_is_not_there_gets_nothing(keys: tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey]) -> None:
    """Somebody's public signing key beside one's own TLS key, and the reverse."""
    request = make_request(CLAIMS, *keys)
    request.signing_key = raw(Ed25519PrivateKey.generate())
    with pytest.raises(ZaibeiError, match="signing key"):
        check_request(request, "node-a")
    request = make_request(CLAIMS, *keys)
    der = bytearray(request.csr)
    der[-1] ^= 1
    request.csr, request.signature = bytes(der), keys[1].sign(signing_octets(bytes(der)))
    with pytest.raises(ZaibeiError):
        check_request(request, "node-a")


def test_a_request_for_another_name_or_of_another_kind_is_refused(
    keys: tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey],
) -> None:
    with pytest.raises(ZaibeiError, match="another name"):
        check_request(make_request(CLAIMS, *keys), "node-b")
    large = make_request(CLAIMS, ec.generate_private_key(ec.SECP384R1()), keys[1])
    with pytest.raises(ZaibeiError, match="P-256"):
        check_request(large, "node-a")
    request = make_request(CLAIMS, *keys)
    for octets in (b"", b"x" * 9_000, b"\x30\x03\x02\x01\x01"):
        request.csr = octets
        with pytest.raises(ZaibeiError) as caught:
            check_request(request, "node-a")
        assert caught.value.code is Code.MALFORMED


def test_a_renewal_is_signed_by_the_key_it_renews(keys: tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey]) -> None:
    leaf = Company().sign("node-a", ["zaibei:source:node-a"], tls=keys[0])
    csr = csr_of(CLAIMS, ec.generate_private_key(ec.SECP256R1()), keys[1]).public_bytes(Encoding.DER)
    good = keys[0].sign(renewal_octets(csr), ec.ECDSA(hashes.SHA256()))
    assert check_renewal(leaf, csr, good) == "node-a"
    stranger = ec.generate_private_key(ec.SECP256R1()).sign(renewal_octets(csr), ec.ECDSA(hashes.SHA256()))
    for signature in (b"", stranger, keys[0].sign(csr, ec.ECDSA(hashes.SHA256()))):
        with pytest.raises(ZaibeiError) as caught:
            check_renewal(leaf, csr, signature)
        assert caught.value.code is Code.NOT_AUTHORISED


def test_a_member_answers_under_a_name_of_its_own() -> None:
    names = {member_tls_name(number, cluster) for number in (1, 2) for cluster in (b"", b"a" * 16, b"b" * 16)}
    assert len(names) == 6 and all(len(label) <= 63 for name in names for label in name.split("."))


def test_a_request_says_what_an_own_ca_needs(keys: tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey]) -> None:
    csr = csr_of(Claims(Role.MEMBER, "member-3", 3, b"c" * 16), *keys)
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["zaibei:member:3", f"zaibei:cluster:{(b'c' * 16).hex()}"]
