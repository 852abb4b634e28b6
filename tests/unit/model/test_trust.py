"""Who a certificate is: a company's own CA with an intermediate and a list, pins beside it, and all that must be refused."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins
from replica.model.trust import Authority, Claims, Role, Trust, claims_of
from tests.unit.pki.authority import DAY, NOW, NOW_S, Company, pem

CLUSTER = bytes(range(16))
SOURCE = Peer("node-a", b"", (prefix_key("88.118"),))
ALL = frozenset(Role)
PINS = Pins((SOURCE,))


@pytest.fixture(scope="module")
def company() -> Company:
    return Company()


def trust(company: Company, *lists: bytes, pins: Pins = PINS, roles: frozenset[Role] = ALL, cluster: bytes = b"") -> Trust:
    return Trust(pins, Authority.parse([pem(company.root, company.middle)], lists), roles, cluster)


def refused(trusts: Trust | Pins, *chain: x509.Certificate, at_s: float = NOW_S) -> str:
    with pytest.raises(ZaibeiError) as caught:
        trusts.identify([pem(one) for one in chain], at_s)
    assert caught.value.code is Code.NOT_AUTHORISED
    return caught.value.trouble.message


def test_a_source_of_the_ca_is_the_configured_one_with_its_prefixes(company: Company) -> None:
    leaf = company.sign("node-a", ["zaibei:source:node-a"])
    peer = trust(company).identify([pem(leaf)], NOW_S)
    assert (peer.name, peer.role, peer.prefixes, peer.number) == ("node-a", "source", SOURCE.prefixes, 0)
    assert peer.certificate_pem == pem(leaf) and len(peer.signing_key) == 32


def test_the_intermediate_may_come_with_the_certificate(company: Company) -> None:
    """Configured: the root alone; shown: the leaf and the CA that signed it."""
    leaf = company.sign("node-a", ["zaibei:source:node-a"])
    alone = Trust(Pins((SOURCE,)), Authority.parse([pem(company.root)]), ALL)
    assert alone.identify([pem(leaf), pem(company.middle)], NOW_S).issuers_pem == pem(company.middle)
    assert alone.identify([pem(leaf, company.middle)], NOW_S).name == "node-a"
    assert "not of a CA trusted here" in refused(alone, leaf)


def test_a_member_carries_number_and_cluster(company: Company) -> None:
    leaf = company.sign("member-3", ["zaibei:member:3", f"zaibei:cluster:{CLUSTER.hex()}"])
    peer = trust(company, cluster=CLUSTER).identify([pem(leaf)], NOW_S)
    assert (peer.name, peer.role, peer.number, peer.cluster) == ("member-3", "member", 3, CLUSTER)
    assert "another cluster" in refused(trust(company, cluster=b"x" * 16), leaf)
    assert "another cluster" in refused(trust(company, cluster=CLUSTER), company.sign("member-4", ["zaibei:member:4"]))


@pytest.mark.parametrize("role", list(Role))
def test_each_role_comes_in_where_it_is_let_in_and_nowhere_else(company: Company, role: Role) -> None:
    leaf = company.sign("node-a", [*Claims(role, "node-a", 1 if role is Role.MEMBER else 0).uris()])
    assert trust(company, roles=frozenset({role})).identify([pem(leaf)], NOW_S).role == role
    assert "may do nothing here" in refused(trust(company, roles=ALL - {role}), leaf)


def test_a_member_with_a_sources_name_is_no_source(company: Company) -> None:
    leaf = company.sign("node-a", ["zaibei:member:7"])
    assert "may do nothing here" in refused(trust(company, roles=frozenset({Role.SOURCE})), leaf)
    peer = trust(company, roles=frozenset({Role.MEMBER})).identify([pem(leaf)], NOW_S)
    assert peer.role == "member" and peer.prefixes == ()


def test_a_revoked_certificate_is_refused(company: Company) -> None:
    leaf, other = (company.sign("node-a", ["zaibei:source:node-a"]) for _ in range(2))
    listed = company.list_pem(leaf.serial_number)
    assert "is revoked" in refused(trust(company, listed), leaf)
    assert trust(company, listed).identify([pem(other)], NOW_S).name == "node-a"


def test_a_revoked_intermediate_takes_all_it_signed_with_it(company: Company) -> None:
    entry = x509.RevokedCertificateBuilder().serial_number(company.middle.serial_number).revocation_date(NOW).build()
    builder = x509.CertificateRevocationListBuilder().issuer_name(company.root.subject).last_update(NOW).next_update(NOW + DAY)
    of_root = pem(builder.add_revoked_certificate(entry).sign(company.root_key, hashes.SHA256()))
    assert "is revoked" in refused(trust(company, of_root), company.sign("node-a", ["zaibei:source:node-a"]))


def test_a_list_somebody_else_signed_is_no_list(company: Company) -> None:
    with pytest.raises(ZaibeiError, match="signed by no CA given here"):
        trust(company, Company().list_pem(1))


def test_an_outdated_list_counts_on_and_says_so(company: Company) -> None:
    leaf = company.sign("node-a", ["zaibei:source:node-a"])
    old = trust(company, company.list_pem(leaf.serial_number, next_update=NOW - DAY))
    assert "is revoked" in refused(old, leaf)
    assert old.authority is not None and old.authority.outdated(NOW_S) and not old.authority.outdated(NOW_S - 2 * 86_400)


def test_before_its_time_and_after_it(company: Company) -> None:
    leaf = company.sign("node-a", ["zaibei:source:node-a"], lasts=10 * DAY)
    assert "ended at 2026-03-10 12:00:00 UTC" in refused(trust(company), leaf, at_s=(NOW + 9 * DAY).timestamp() + 1)
    assert refused(trust(company), leaf, at_s=(NOW - 2 * DAY).timestamp())


def test_another_ca_of_the_same_name_is_another(company: Company) -> None:
    foreign = Company()
    leaf = foreign.sign("node-a", ["zaibei:source:node-a"])
    assert "not of a CA trusted here" in refused(trust(company), leaf, foreign.middle, foreign.root)


def test_what_is_no_ca_signs_nothing(company: Company) -> None:
    pretender = Company(middle_is_ca=False)
    leaf = pretender.sign("node-a", ["zaibei:source:node-a"])
    authority = Authority.parse([pem(pretender.root)])
    assert refused(Trust(Pins((SOURCE,)), authority, ALL), leaf, pretender.middle)
    deep = Company(root_path_length=0)  # this root allows no intermediate
    leaf = deep.sign("node-a", ["zaibei:source:node-a"])
    assert refused(Trust(Pins((SOURCE,)), Authority.parse([pem(deep.root)]), ALL), leaf, deep.middle)
    assert refused(trust(company), company.middle)
    itself = company.sign("node-a", ["zaibei:source:node-a"], ca=True)
    assert "no identity" in refused(trust(company), itself)  # a CA's own certificate, whatever names it carries


@pytest.mark.parametrize(
    ("name", "uris", "why"),
    [
        ("node-a", [], "must carry one role"),
        ("node-a", ["zaibei:source:node-b"], "names 'node-b'"),
        ("node-a", ["zaibei:source:node-a", "zaibei:member:1"], "must carry one role"),
        ("node-a", ["zaibei:root:node-a"], "must carry one role"),
        ("node-a", ["zaibei:source:node-a", "zaibei:admin"], "must carry one role"),
        ("member-1", ["zaibei:member:0"], "no number"),
        ("member-1", ["zaibei:member:-1"], "no number"),
        ("member-1", ["zaibei:member:1", "zaibei:cluster:00ff"], "no cluster of 16 octets"),
        ("node-x", ["zaibei:source:node-x"], "no source 'node-x' is configured"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_nobodys(company: Company, name: str, uris: list[str], why: str) -> None:
    assert why in refused(trust(company), company.sign(name, uris))


def test_without_a_signing_key_nobody_signs_receipts(company: Company) -> None:
    for key in (b"", b"short"):
        leaf = company.sign("node-a", ["zaibei:source:node-a"], signing_key=key)
        assert "no signing key" in refused(trust(company), leaf)


def test_pins_stay_good_beside_a_ca_and_are_checked_with_it(company: Company, tmp_path: Path) -> None:
    own = ensure_identity(tmp_path, "node-b")
    now_s = own_now = x509.load_pem_x509_certificate(own.certificate_pem).not_valid_before_utc.timestamp() + 1
    pinned = Peer("node-b", own.certificate_pem, (prefix_key("88.119"),))
    assert trust(company, pins=Pins((SOURCE, pinned))).identify([own.certificate_pem], own_now) == pinned
    wanted = company.sign("node-a", ["zaibei:source:node-a"])
    held = Pins((replace(SOURCE, certificate_pem=pem(wanted)),))
    assert trust(company, pins=held).identify([pem(wanted)], NOW_S).name == "node-a"
    assert "is pinned here to" in refused(trust(company, pins=held), company.sign("node-a", ["zaibei:source:node-a"]))
    assert "is revoked" in refused(trust(company, company.list_pem(wanted.serial_number), pins=held), wanted)
    assert "has ended" in refused(
        Pins((pinned,)), x509.load_pem_x509_certificate(own.certificate_pem), at_s=now_s + 4_000 * 86_400
    )


def test_what_does_not_parse_is_nobodys(company: Company) -> None:
    leaf = company.sign("node-a", ["zaibei:source:node-a"])
    der = leaf.public_bytes(Encoding.DER)
    for at in range(0, len(der), 7):
        broken = bytearray(der)
        broken[at] ^= 0x41
        text = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(broken)) + b"-----END CERTIFICATE-----\n"
        with pytest.raises(ZaibeiError) as caught:
            trust(company).identify([text], NOW_S)
        assert caught.value.code in (Code.NOT_AUTHORISED, Code.MALFORMED)
    for chain in ([], [b""], [b"x"], [pem(leaf)] * 9):
        with pytest.raises(ZaibeiError):
            trust(company).identify(chain, NOW_S)


def test_claims_are_written_as_they_are_read(company: Company) -> None:
    for claims in (Claims(Role.MEMBER, "m", 3, CLUSTER), Claims(Role.SOURCE, "s"), Claims(Role.OPERATOR, "li")):
        assert claims_of(company.sign(claims.name, claims.uris())) == claims


def test_roots_without_a_root(company: Company) -> None:
    for octets in (b"", b"nothing", pem(company.middle)):
        with pytest.raises(ZaibeiError):
            Authority.parse([octets])
