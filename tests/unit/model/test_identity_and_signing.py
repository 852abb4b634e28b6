"""Identities: made once, mode 0600, pinned by fingerprint; signatures over canonical octets."""

import os
from pathlib import Path

import pytest

from replica.model.edge_identity import CERTIFICATE_FILE, SIGNING_KEY_FILE, TLS_KEY_FILE, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Pins, fingerprint, name_of, signing_key_of
from replica.model.position import ORIGIN
from replica.model.signing import canonical, receipt_octets, verify


def test_first_start_makes_an_identity_and_later_starts_keep_it(tmp_path: Path) -> None:
    made, kept = ensure_identity(tmp_path / "id", "node-1"), ensure_identity(tmp_path / "id", "node-1")
    assert made.fingerprint == kept.fingerprint == fingerprint(made.certificate_pem)
    assert name_of(made.certificate_pem) == "node-1"
    assert signing_key_of(made.certificate_pem) == made.signer.public
    for file in (TLS_KEY_FILE, SIGNING_KEY_FILE, CERTIFICATE_FILE):
        assert os.stat(tmp_path / "id" / file).st_mode & 0o777 == 0o600


def test_an_identity_others_can_read_or_a_partial_one_is_refused(tmp_path: Path) -> None:
    ensure_identity(tmp_path, "node-1")
    with pytest.raises(ZaibeiError, match="not 'node-2'"):
        ensure_identity(tmp_path, "node-2")
    (tmp_path / TLS_KEY_FILE).chmod(0o644)
    with pytest.raises(ZaibeiError) as caught:
        ensure_identity(tmp_path, "node-1")
    assert caught.value.code == Code.NOT_AUTHORISED
    (tmp_path / TLS_KEY_FILE).unlink()
    with pytest.raises(ZaibeiError, match="part of an identity"):
        ensure_identity(tmp_path, "node-1")


def test_a_pin_is_the_certificate_not_a_name_somebody_states(tmp_path: Path) -> None:
    real, forged = ensure_identity(tmp_path / "a", "node-1"), ensure_identity(tmp_path / "b", "node-1")
    pins = Pins((Peer("node-1", real.certificate_pem),))
    assert pins.by_certificate(real.certificate_pem) is pins.peers[0]
    assert pins.by_certificate(forged.certificate_pem) is None
    with pytest.raises(ZaibeiError, match="names 'node-1'"):
        Peer("node-2", real.certificate_pem)


def test_a_signature_is_bound_to_key_domain_and_every_field(tmp_path: Path) -> None:
    signer, other = (ensure_identity(tmp_path / name, name).signer for name in ("a", "b"))
    octets = receipt_octets("s", 0, ORIGIN, 2, "m", 7)
    signature = signer.sign(octets)
    assert verify(signer.public, octets, signature)
    assert not verify(other.public, octets, signature)
    assert not verify(signer.public, receipt_octets("s", 0, ORIGIN, 3, "m", 7), signature)
    signature.suite = "none"
    assert not verify(signer.public, octets, signature)


def test_canonical_fields_cannot_run_into_each_other() -> None:
    assert canonical("d", "ab", "c") != canonical("d", "a", "bc")
