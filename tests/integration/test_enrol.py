"""Enrolment over gRPC: tokens once, wrong ones learn nothing, the CA is checked before the secret is said, renewal, members."""

from __future__ import annotations

import asyncio
import logging
import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.pki.edge_folder import LIST_FILE, ROOT_FILE, PkiFolder
from ops.pki.edge_join import fetch, source_text
from ops.pki.edge_own import issue_into
from ops.pki.edge_renew import renew_over_network
from replica.agent.config import read_config
from replica.enrol.edge_client import enrol, request_of
from replica.enrol.edge_server import EnrolServer, EnrolService
from replica.enrol.memory import MemoryAdmission, MemoryWelcome
from replica.enrol.port import Admission, Centre
from replica.enrol.request import make_request
from replica.enrol.tickets import CALLER_WRONG_MAX, Ticket, secret_hash
from replica.enrol.token import Token
from replica.model.edge_identity import Identity, ensure_identity, new_tls_key
from replica.model.edge_trust import LiveTrust, TrustFiles
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Pins
from replica.model.trust import Authority, Claims, Role, Trust
from replica.v1 import enrol_pb2

HOSTS = ("127.0.0.1", "[::1]")
CLUSTER = b"c" * 16
SECRET = b"0123456789abcdef"
NODE = Pins((Peer("node-a", b"", (b"x",)),))


@dataclass
class Office:
    """The member that enrols, with its CA and where it listens."""

    folder: Path
    ca: PkiFolder
    identity: Identity
    welcome: MemoryWelcome
    address: str = ""

    def token(self, name: str = "node-a", role: Role = Role.SOURCE, *, lasts_s: int = 60, ident: bytes = b"ticket-1") -> Token:
        expires_s = int(time.time()) + lasts_s
        prefixes = ("88.118.8",) if role is Role.SOURCE else ()
        self.ca.put(Ticket(ident, secret_hash(SECRET), role, name, expires_s, prefixes))
        return Token((self.address,), self.ca.root.fingerprint(hashes.SHA256()), ident, SECRET, role, name, expires_s)

    def trust(self) -> Trust:
        return Trust(NODE, Authority.parse([self.ca.roots_pem()], [self.ca.lists_pem()]), frozenset(Role))


@asynccontextmanager
async def office(folder: Path, host: str = "127.0.0.1", admission: Admission | None = None) -> AsyncIterator[Office]:
    ca = PkiFolder.create(folder / "pki", "test CA")
    identity = issue_into(ca, folder / "member", Claims(Role.MEMBER, "member-1", 1))
    made = Office(folder, ca, identity, MemoryWelcome())
    files = TrustFiles((ca.path / ROOT_FILE,), (ca.path / LIST_FILE,))
    trusts = LiveTrust(lambda: NODE, files, frozenset(Role))
    centres = [Centre("member-1", 1, ("127.0.0.1:2643",)), Centre("member-2", 2, ("127.0.0.2:2643",))]
    cluster = CLUSTER if admission else b""
    server = EnrolServer(EnrolService(ca, ca, lambda: centres, trusts, made.welcome, admission, cluster), identity)
    await server.start([(host.strip("[]"), 0)])
    made.address = f"{host}:{server.addresses[0][1]}"
    try:
        yield made
    finally:
        await server.stop()


def wanted(name: str = "node-a", role: Role = Role.SOURCE) -> enrol_pb2.CertificateRequest:
    return make_request(Claims(role, name), new_tls_key(), Ed25519PrivateKey.generate())


async def refused(token: Token, request: enrol_pb2.EnrolRequest) -> ZaibeiError:
    with pytest.raises(ZaibeiError) as caught:
        await enrol(token, request)
    return caught.value


@pytest.mark.parametrize("host", HOSTS)
async def test_a_source_joins_by_a_token(tmp_path: Path, host: str) -> None:
    async with office(tmp_path, host) as at:
        identity, answer = await fetch(tmp_path / "node" / "data", at.token())
        assert at.trust().identify([identity.certificate_pem], time.time()).name == "node-a"
        assert at.welcome.sources == ["node-a"] and list(answer.prefixes) == ["88.118.8"]
        assert not (tmp_path / "node" / "data" / "joining").exists()
        text = source_text(at.token(), answer, "data", ["registry.csv"], [])
        config = read_config(tomllib.loads(text), "source.toml", tmp_path / "node")
        assert config.push == (("member-1", "127.0.0.1:2643"), ("member-2", "127.0.0.2:2643")) and config.nature.prefixes == (
            "88.118.8",
        )
        assert config.trust is not None and config.trust.read().roots == (at.ca.root,)


async def test_an_answer_that_was_lost_is_given_again_to_the_same_request_only(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        token = at.token()
        request = request_of(token, wanted())
        first, second = await enrol(token, request), await enrol(token, request)
        assert first.certificate == second.certificate
        assert len([one for one in at.ca.book().issued if one.role is Role.SOURCE]) == 1
        error = await refused(token, request_of(token, wanted()))
        assert error.code is Code.NOT_AUTHORISED


async def test_whatever_is_wrong_gets_one_and_the_same_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Wrong secret, unknown ticket, another name or role, ended, used: nobody learns which; the log tells the operator."""
    async with office(tmp_path) as at:
        token = at.token()
        ended = at.token(ident=b"ticket-2", lasts_s=-1)
        used = at.token(ident=b"ticket-3")
        await enrol(used, request_of(used, wanted()))
        attempts = [
            replace(token, secret=b"x" * 16),
            replace(token, ticket=b"unknown!"),
            replace(token, name="node-b"),
            replace(token, role=Role.MEMBER),
            ended,
            used,
        ]
        with caplog.at_level(logging.WARNING, "zaibei.enrol"):
            errors = [await refused(one, request_of(one, wanted(one.name))) for one in attempts]
        assert len({str(error) for error in errors}) == 1 and errors[0].code is Code.NOT_AUTHORISED
        whys = {
            record.fields["why"].partition(",")[0]
            for record in caplog.records
            if hasattr(record, "fields") and "why" in record.fields
        }
        assert whys == {
            "wrong secret",
            "no such ticket",
            "another name or role than the token's",
            "closed: ended",
            "used already by another request",
        }
        assert SECRET.hex() not in caplog.text and SECRET not in (at.ca.path / "book.json").read_bytes()


async def test_guessing_is_stopped(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        token = at.token()
        guess = replace(token, secret=b"y" * 16)
        codes = [(await refused(guess, request_of(guess, wanted()))).code for _ in range(CALLER_WRONG_MAX + 1)]
        assert codes[-1] is Code.BUSY and set(codes[:-1]) == {Code.NOT_AUTHORISED}
        assert at.ca.book().tickets[0].wrong == 5  # the ticket is closed, and not written again and again


async def test_the_secret_is_not_said_to_another_ca(tmp_path: Path) -> None:
    async with office(tmp_path / "real") as real, office(tmp_path / "false") as false:
        token = replace(real.token(), addresses=(false.address,))
        false.token()
        error = await refused(token, request_of(token, wanted()))
        assert error.code is Code.NOT_AUTHORISED and "The token was not sent" in str(error)
        assert false.welcome.sources == [] and not false.ca.book().tickets[0].request_hash


async def test_a_source_of_the_ca_cannot_pose_as_the_member_that_enrols(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        node = issue_into(at.ca, tmp_path / "node", Claims(Role.SOURCE, "node-a"))
        posing = EnrolServer(EnrolService(at.ca, at.ca, list, at.trust(), at.welcome), node)
        await posing.start([("127.0.0.1", 0)])
        token = replace(at.token(), addresses=(f"127.0.0.1:{posing.addresses[0][1]}",))
        error = await refused(token, request_of(token, wanted()))
        await posing.stop()
        assert "may do nothing here" in str(error)


async def test_a_request_without_its_keys_does_not_use_the_token_up(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        token = at.token()
        request = request_of(token, wanted())
        request.request.signature = b"\0" * 64
        assert (await refused(token, request)).code is Code.MALFORMED
        assert (await enrol(token, request_of(token, wanted()))).certificate


async def test_a_member_gets_number_cluster_and_card(tmp_path: Path) -> None:
    admission = MemoryAdmission(CLUSTER)
    async with office(tmp_path, admission=admission) as at:
        token = at.token("member-2", Role.MEMBER)
        joining = enrol_pb2.JoiningMember(zone="b", links=["127.0.0.1:2646"], feeds=["127.0.0.1:2643"], journal=b"j" * 16)
        admission.closed = True  # no majority: refused, and the same request may come again
        request = request_of(token, wanted("member-2", Role.MEMBER), joining)
        assert (await refused(token, request)).code is Code.UNREACHABLE
        admission.closed = False
        first = await enrol(token, request)
        again = await enrol(token, request)
        assert (
            (first.number, first.cluster, first.card)
            == (2, CLUSTER, b"card of member-2, 2")
            == (again.number, again.cluster, again.card)
        )
        assert [one.number for one in admission.asked] == [0, 2] and admission.asked[0].zone == "b"
        peer = at.trust().identify([first.certificate], time.time())
        assert (peer.role, peer.number, peer.cluster) == ("member", 2, CLUSTER)


async def test_a_member_without_a_cluster_says_so(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        token = at.token("member-2", Role.MEMBER)
        error = await refused(token, request_of(token, wanted("member-2", Role.MEMBER)))
        assert error.code is Code.REFUSED and "zaibei cluster init" in str(error)


async def test_a_certificate_is_renewed_while_it_is_good(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        data = tmp_path / "data"
        before, _ = await fetch(data, at.token())
        files = TrustFiles((data / ROOT_FILE,), (data / LIST_FILE,))
        trusts = LiveTrust(Pins, files, frozenset({Role.MEMBER}))
        after = await renew_over_network(before, data / "identity", [at.address], trusts, files)
        assert after.certificate_pem != before.certificate_pem and after.signer.public == before.signer.public
        assert at.trust().identify([after.certificate_pem], time.time()).name == "node-a"
        at.ca.revoke(frozenset(one.serial for one in at.ca.book().named("node-a")))
        await asyncio.sleep(1.2)
        with pytest.raises(ZaibeiError, match="is revoked"):
            await renew_over_network(after, data / "identity", [at.address], trusts, files)
        assert ensure_identity(data / "identity", "node-a").certificate_pem == after.certificate_pem


async def test_a_stolen_certificate_without_its_key_renews_nothing(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        real = issue_into(at.ca, tmp_path / "real", Claims(Role.SOURCE, "node-a"))
        thief = ensure_identity(tmp_path / "thief", "node-a")
        files = TrustFiles((at.ca.path / ROOT_FILE,))
        for posing, why in (
            (replace(thief, certificate_pem=real.certificate_pem), "not signed by the key"),
            (replace(real, tls_key_pem=thief.tls_key_pem), "not signed by the key"),
            (replace(real, signer=thief.signer), "keeps the signing key"),
        ):
            with pytest.raises(ZaibeiError, match=why) as caught:
                await renew_over_network(posing, tmp_path / "thief", [at.address], at.trust(), files)
            assert caught.value.code is Code.NOT_AUTHORISED


async def test_who_has_an_identity_already_keeps_it(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        ensure_identity(tmp_path / "data" / "identity", "node-a")
        with pytest.raises(ZaibeiError) as caught:
            await fetch(tmp_path / "data", at.token())
        assert caught.value.code is Code.CONFLICT and not at.ca.book().tickets[0].request_hash
