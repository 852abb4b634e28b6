"""The CA's folder: modes, a passphrase, the book, revocation onto the list, tickets of two processes, renewal of an identity."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.pki.book import Book, decode_book, encode_book
from ops.pki.edge_folder import BOOK_FILE, KEY_FILE, LIST_FILE, ROOT_FILE, PkiFolder
from ops.pki.edge_own import issue_into
from replica.enrol.request import raw
from replica.enrol.tickets import Ticket, TicketState
from replica.model.edge_identity import (
    CERTIFICATE_FILE,
    NEXT_TLS_KEY_FILE,
    TLS_KEY_FILE,
    ensure_identity,
    key_pem,
    new_tls_key,
    replace_certificate,
)
from replica.model.edge_trust import LOOK_S, LiveTrust, TrustFiles
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Pins
from replica.model.trust import Authority, Claims, Role, Trust

NODE = Claims(Role.SOURCE, "node-a")
PINS = Pins((Peer("node-a", b"", (b"x",)), Peer("node-b", b"", (b"y",))))


def issued(ca: PkiFolder, claims: Claims = NODE) -> bytes:
    return ca.issue(claims, new_tls_key().public_key(), raw(Ed25519PrivateKey.generate()))


def trust(ca: PkiFolder) -> Trust:
    return Trust(PINS, Authority.parse([ca.roots_pem()], [ca.lists_pem()]), frozenset(Role))


@pytest.mark.parametrize("behind_s", [-3_600, 7_200, 80_000])
def test_who_was_taken_in_just_now_is_known_to_a_member_whose_clock_is_hours_off(tmp_path: Path, behind_s: int) -> None:
    ca = PkiFolder.create(tmp_path / "pki", "test CA")
    assert trust(ca).identify([issued(ca)], time.time() - behind_s).name == "node-a"


def test_a_ca_is_made_once_and_its_secrets_are_for_its_owner(tmp_path: Path) -> None:
    ca = PkiFolder.create(tmp_path / "pki", "test CA")
    assert [os.stat(tmp_path / "pki" / file).st_mode & 0o777 for file in (KEY_FILE, BOOK_FILE)] == [0o600, 0o600]
    before = (tmp_path / "pki" / KEY_FILE).read_bytes()
    with pytest.raises(ZaibeiError) as caught:
        PkiFolder.create(tmp_path / "pki", "test CA")
    assert caught.value.code is Code.CONFLICT and (tmp_path / "pki" / KEY_FILE).read_bytes() == before
    (tmp_path / "pki" / KEY_FILE).chmod(0o640)
    with pytest.raises(ZaibeiError, match="read by others"):
        ca.key()


def test_a_locked_key_wants_its_passphrase(tmp_path: Path) -> None:
    made = PkiFolder.create(tmp_path, "test CA", passphrase=b"long enough")
    assert issued(made)
    assert b"ENCRYPTED" in (tmp_path / KEY_FILE).read_bytes()
    for other in (PkiFolder(tmp_path), PkiFolder(tmp_path, lambda: b"wrong")):
        with pytest.raises(ZaibeiError) as caught:
            other.key()
        assert caught.value.code is Code.NOT_AUTHORISED
    assert issued(PkiFolder(tmp_path, lambda: b"long enough"))


def test_what_is_signed_is_in_the_book_and_never_outlives_the_ca(tmp_path: Path) -> None:
    ca = PkiFolder.create(tmp_path, "test CA", days=10)
    chain = issued(ca)
    leaf = x509.load_pem_x509_certificates(chain)[0]
    (one,) = ca.book().issued
    assert (one.serial, one.role, one.name) == (f"{leaf.serial_number:x}", Role.SOURCE, "node-a")
    assert leaf.not_valid_after_utc == ca.root.not_valid_after_utc
    assert trust(ca).identify([chain], time.time()).name == "node-a"


def test_a_revoked_name_is_on_the_list_and_can_be_signed_anew(tmp_path: Path) -> None:
    ca = PkiFolder.create(tmp_path, "test CA")
    first, second, other = issued(ca), issued(ca), issued(ca, replace(NODE, name="node-b"))
    ca.put(Ticket(b"t" * 8, b"h" * 32, Role.SOURCE, "node-a", int(time.time()) + 60))
    ca.revoke(frozenset(one.serial for one in ca.book().named("source/node-a")))
    for chain in (first, second):
        with pytest.raises(ZaibeiError, match="is revoked"):
            trust(ca).identify([chain], time.time())
    assert trust(ca).identify([other], time.time()).name == "node-b"
    assert trust(ca).identify([issued(ca)], time.time()).name == "node-a"
    assert ca.book().tickets[0].state(time.time()) is TicketState.CLOSED
    ca.revoke(frozenset(one.serial for one in ca.book().named("node-b")))
    assert len(x509.load_pem_x509_crl(ca.lists_pem())) == 3 and ca.book().list_number == 3


def test_a_name_of_two_roles_must_say_which(tmp_path: Path) -> None:
    ca = PkiFolder.create(tmp_path, "test CA")
    issued(ca), issued(ca, Claims(Role.OPERATOR, "node-a"))
    with pytest.raises(ZaibeiError) as caught:
        ca.book().named("node-a")
    assert caught.value.code is Code.CONFLICT
    (one,) = ca.book().named("operator/node-a")
    assert ca.book().named(one.serial) == (one,)
    with pytest.raises(ZaibeiError) as caught:
        ca.book().named("node-z")
    assert caught.value.code is Code.NOT_FOUND


def test_the_book_comes_back_whole_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    ca = PkiFolder.create(tmp_path, "test CA")
    issued(ca)
    ticket = Ticket(b"t" * 8, b"h" * 32, Role.MEMBER, "m", 9, ("88",), ("a:1",), 2, True, b"r" * 32, 5, b"pem")
    book = ca.book().with_ticket(ticket, 1.0)
    assert decode_book(encode_book(book), "x") == book
    for octets in (b"", b"{}", encode_book(book)[:-40], encode_book(book).replace(b'"format": 1', b'"format": 2')):
        with pytest.raises(ZaibeiError) as caught:
            decode_book(octets, "x")
        assert caught.value.code is Code.DAMAGED
    assert Book().with_ticket(ticket, 1e12).with_ticket(replace(ticket, ident=b"u" * 8), 1e12).tickets[0].ident == b"u" * 8


def test_tickets_are_changed_one_at_a_time(tmp_path: Path) -> None:
    PkiFolder.create(tmp_path, "test CA").put(Ticket(b"t" * 8, b"h" * 32, Role.SOURCE, "node-a", 2_000_000_000))

    def more(_: int) -> None:
        PkiFolder(tmp_path).change(b"t" * 8, lambda one: replace(one, wrong=one.wrong + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(more, range(40)))
    assert PkiFolder(tmp_path).book().tickets[0].wrong == 40
    assert PkiFolder(tmp_path).change(b"u" * 8, lambda one: one) is None


def test_a_renewed_identity_keeps_its_signing_key_and_is_taken_up(tmp_path: Path) -> None:
    ca = PkiFolder.create(tmp_path / "pki", "test CA")
    first = issue_into(ca, tmp_path / "id", NODE)
    held = ensure_identity(tmp_path / "id", "node-a")
    assert held.latest().certificate_pem == first.certificate_pem
    second = issue_into(ca, tmp_path / "id", NODE)
    assert second.signer.public == first.signer.public and second.tls_key_pem != first.tls_key_pem
    time.sleep(LOOK_S + 0.1)
    assert held.latest().certificate_pem == second.certificate_pem and held.latest().tls_key_pem == second.tls_key_pem


@pytest.mark.parametrize("step", ["key written", "certificate written"])
def test_a_renewal_that_broke_off_leaves_a_whole_identity(tmp_path: Path, step: str) -> None:
    ca = PkiFolder.create(tmp_path / "pki", "test CA")
    folder = tmp_path / "id"
    before = issue_into(ca, folder, NODE)
    tls = new_tls_key()
    chain = ca.issue(NODE, tls.public_key(), before.signer.public)
    old_key = (folder / TLS_KEY_FILE).read_bytes()
    old_certificate = (folder / CERTIFICATE_FILE).read_bytes()
    replace_certificate(folder, chain, key_pem(tls))
    (folder / NEXT_TLS_KEY_FILE).write_bytes(key_pem(tls))
    (folder / NEXT_TLS_KEY_FILE).chmod(0o600)
    (folder / TLS_KEY_FILE).write_bytes(old_key)
    if step == "key written":
        (folder / CERTIFICATE_FILE).write_bytes(old_certificate)
    found = ensure_identity(folder, "node-a")
    wanted = (old_certificate, old_key) if step == "key written" else (chain, key_pem(tls))
    assert (found.certificate_pem, found.tls_key_pem) == wanted


def test_a_half_written_or_foreign_identity_is_not_taken_up(tmp_path: Path) -> None:
    ca = PkiFolder.create(tmp_path / "pki", "test CA")
    held = issue_into(ca, tmp_path / "id", NODE)
    assert held.latest() is held
    for octets in (b"nothing", issued(ca), issued(ca, replace(NODE, name="node-b"))):
        (tmp_path / "id" / CERTIFICATE_FILE).write_bytes(octets)
        time.sleep(LOOK_S + 0.1)
        assert held.latest().certificate_pem == held.certificate_pem


def test_changed_files_of_a_ca_count_within_seconds_and_bad_ones_do_not(tmp_path: Path) -> None:
    ca = PkiFolder.create(tmp_path, "test CA")
    chain = issued(ca)
    live = LiveTrust(lambda: PINS, TrustFiles((tmp_path / ROOT_FILE,), (tmp_path / LIST_FILE,)), frozenset(Role))
    assert live.identify([chain], time.time()).name == "node-a"
    good = ca.lists_pem()
    (tmp_path / LIST_FILE).write_bytes(b"half a li")
    time.sleep(LOOK_S + 0.1)
    assert live.identify([chain], time.time()).name == "node-a"
    (tmp_path / LIST_FILE).write_bytes(good)
    ca.revoke(frozenset(one.serial for one in ca.book().named("node-a")))
    time.sleep(LOOK_S + 0.1)
    with pytest.raises(ZaibeiError, match="is revoked"):
        live.identify([chain], time.time())
    with pytest.raises(ZaibeiError) as caught:
        LiveTrust(lambda: PINS, TrustFiles((tmp_path / "none.pem",)), frozenset(Role))
    assert caught.value.code is Code.INVALID_CONFIG


def test_a_chain_is_proved_once_until_what_it_rests_on_changes_or_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = PkiFolder.create(tmp_path, "test CA")
    chain, pins, proofs = issued(ca), [PINS], list[float]()
    ends_s = x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc.timestamp()
    prove = Trust.identify

    def counted(self: Trust, chain_pem: Sequence[bytes], now_s: float) -> Peer:
        proofs.append(now_s)
        return prove(self, chain_pem, now_s)

    monkeypatch.setattr(Trust, "identify", counted)
    live = LiveTrust(lambda: pins[0], TrustFiles((tmp_path / ROOT_FILE,)), frozenset(Role))
    for at_s in (ends_s - 90, ends_s - 89, ends_s - 31):  # within KNOWN_S_MAX
        assert live.identify([chain], at_s).name == "node-a"
    assert len(proofs) == 1
    assert live.identify([chain], ends_s - 29).name == "node-a" and len(proofs) == 2
    assert live.identify([chain], ends_s + 0.7).name == "node-a"  # its last second
    with pytest.raises(ZaibeiError, match="ended at"):
        live.identify([chain], ends_s + 1)  # not kept past its end
    assert live.identify([chain], ends_s - 120).name == "node-a"  # nor before the moment it was proved for
    pins[0] = Pins(())
    with pytest.raises(ZaibeiError, match="no source 'node-a' is configured"):
        live.identify([chain], ends_s - 119)


def test_a_certificate_counts_from_a_little_before(tmp_path: Path) -> None:
    """Clocks of two machines differ."""
    leaf = x509.load_pem_x509_certificates(issued(PkiFolder.create(tmp_path, "test CA")))[0]
    assert leaf.not_valid_before_utc < dt.datetime.now(dt.UTC) - dt.timedelta(minutes=30)
