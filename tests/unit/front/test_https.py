"""The HTTP port over TLS: both families, keys and roots renewed while it runs, clients known by their certificates."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from hosting.front.edge_front import Front, FrontConfig
from hosting.front.edge_tls import LOOK_S, TlsFiles, TlsKeys
from hosting.front.service import FrontService
from hosting.handle.certified import read_certificate
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.keys import encode_key
from replica.model.handle.values import HandleValue, Reference
from tests.unit.front.world import ask_http, read_http
from tests.unit.handle.test_json_writes import VALUES, basic
from tests.unit.handle.test_registrar import NAME, World, admin

WAIT_S = 30.0
WHO = Reference(b"88.118.9/CERT", 300)
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
CN = NameOID.COMMON_NAME
HOSTS = ("127.0.0.1", "::1")
RSA = rsa.generate_private_key(65_537, 2_048)
OTHER = rsa.generate_private_key(65_537, 2_048)


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not look():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate signed by itself, and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key.chmod(0o600)
        certificate.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return certificate, key


def made(subject: str, key: Any = None, *, field: x509.ObjectIdentifier = CN, until: dt.datetime = NOW + DAY) -> Made:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(field, subject)] if subject else [])
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)) for host in HOSTS])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(NOW - 2 * DAY).not_valid_after(until)
    return Made(builder.add_extension(hosts, critical=False).sign(key, hashes.SHA256()), key)


def public_value(key: rsa.RSAPrivateKey) -> HandleValue:
    numbers = key.public_key().public_numbers()
    n, e = (number.to_bytes((number.bit_length() + 8) // 8, "big") for number in (numbers.n, numbers.e))
    return HandleValue(WHO.index, b"HS_PUBKEY", encode_key("RSA", {"n": n, "e": e}))


def jwk_of(key: rsa.RSAPrivateKey) -> dict[str, str]:
    """The public half as the JSON API writes it."""
    numbers = key.public_key().public_numbers()

    def text(number: int) -> str:
        octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

    return {"kty": "RSA", "n": text(numbers.n), "e": text(numbers.e)}


class Place:
    """A front with HTTPS over both families before a world with the key of WHO, and clients of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock_s = folder, 0.0
        self.server = made("zaibei")
        self.files = TlsFiles(*map(str, self.server.write(folder, "https")), clients=str(folder / "clients.pem"))
        self.world = World(admin(WHO))
        self.world.now_ms = int(NOW.timestamp() * 1_000)
        self.world.put(WHO.handle.decode(), public_value(RSA), admin(WHO))
        self.addresses: tuple[tuple[str, int], ...] = ()
        self.front: Front

    def trust(self, *clients: Made) -> None:
        beside = self.folder / "clients.new"
        beside.write_bytes(b"".join(one.certificate.public_bytes(Encoding.PEM) for one in clients))
        os.replace(beside, self.folder / "clients.pem")

    async def ask(
        self, method: str, target: str, body: Any = None, *, host: int = 0, by: Made | None = None, server: Made | None = None,
        headers: str = "", version: ssl.TLSVersion | None = None,
    ) -> tuple[int, Any]:  # fmt: skip
        """(status, JSON) of one request. Raises OSError: no connection, or it was ended without an answer."""
        context = ssl.create_default_context(cadata=(server or self.server).certificate.public_bytes(Encoding.PEM).decode())
        if version is not None:
            context.maximum_version = version
        if by is not None:
            context.load_cert_chain(*by.write(self.folder, "client"))
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(*self.addresses[host], ssl=context)
            try:
                octets = json.dumps(body).encode()
                head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(octets)}\r\n\r\n".encode() + octets)
                try:
                    status, _, said = await read_http(reader)
                except (asyncio.IncompleteReadError, IndexError, ValueError) as exc:
                    raise ConnectionResetError("no answer") from exc
                return status, json.loads(said)
            finally:
                writer.close()


@asynccontextmanager
async def placed(folder: Path, *clients: Made) -> AsyncIterator[Place]:
    place = Place(folder)
    place.trust(*(clients or (made("nobody"),)))
    service = FrontService(place.world.port, registrar=lambda: place.world.registrar)
    place.front = Front(place.world.port, FrontConfig(https=tuple((host, 0) for host in HOSTS), tls=place.files), service)
    place.addresses = (await place.front.start()).https
    try:
        yield place
    finally:
        await place.front.stop()


TARGET = f"/api/handles/{NAME}"
MINE = made(f"300:{WHO.handle.decode()}", RSA)


# ------------------------------------------------------------------------------------------------------ who asks
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_registers_over_both_families(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with placed(tmp_path, MINE) as place:
        for host, status in ((0, 201), (1, 200)):
            assert await place.ask("PUT", TARGET, VALUES, host=host, by=MINE, version=version) == (
                status, {"responseCode": 1, "handle": NAME})  # fmt: skip
        assert (await place.ask("GET", "/api/handles/88.118.9/NONE?doNotRefer"))[0] != 401, "reading needs none"
        assert (await place.ask("DELETE", TARGET))[0] == 401, "nobody who shows nothing"
        assert (await place.ask("DELETE", TARGET, by=MINE))[0] == 200 and place.world.values(NAME) is None


async def test_a_secret_is_taken_over_tls(tmp_path: Path) -> None:
    async with placed(tmp_path) as place:
        place.world.put(WHO.handle.decode(), HandleValue(300, b"HS_SECKEY", b"s", permissions=0x0C), admin(WHO))
        credential = f"Authorization: {basic(WHO, b's').decode()}\r\n"
        assert (await place.ask("PUT", TARGET, VALUES, headers=credential))[0] == 201


async def test_a_certificate_counts_for_the_key_it_holds_alone(tmp_path: Path) -> None:
    foreign, strange = made(f"300:{WHO.handle.decode()}", OTHER), made("300:88.118.9/NOBODY", RSA)
    unnamed, old = made("", RSA), made(f"300:{WHO.handle.decode()}", RSA, until=NOW - DAY)
    async with placed(tmp_path, foreign, strange, unnamed, MINE, old) as place:
        told = await place.ask("PUT", TARGET, VALUES, by=foreign)
        assert told[0] == told[1]["responseCode"] == 403 and "was not proved" in told[1]["message"]
        assert await place.ask("PUT", TARGET, VALUES, by=strange) == told, "there or not there: the same words"
        assert (await place.ask("PUT", TARGET, VALUES, by=unnamed))[1]["responseCode"] == 403
        with pytest.raises(OSError):
            await place.ask("PUT", TARGET, VALUES, by=old)
        with pytest.raises(OSError):
            await place.ask("GET", TARGET, by=made(f"300:{WHO.handle.decode()}", RSA))  # of no root
        place.world.put(WHO.handle.decode(), public_value(OTHER), admin(WHO))
        assert (await place.ask("PUT", TARGET, VALUES, by=MINE))[1]["responseCode"] == 403, "another key stands there now"
        assert place.world.values(NAME) is None


@pytest.mark.parametrize("field", [CN, NameOID.USER_ID])
def test_the_name_of_a_key_is_read(field: x509.ObjectIdentifier) -> None:
    now_ms = int(NOW.timestamp() * 1_000)
    shown = read_certificate(made("300:88.118.9/A:b", RSA, field=field).der, now_ms)
    assert shown.key == Reference(b"88.118.9/A:b", 300) and shown.public.public_numbers() == RSA.public_key().public_numbers()
    wrong = [made("A", RSA), made("0:88.118.9/A", RSA), made("300:88.118.9/A"), made("300:88.118.9/A", RSA, until=NOW - DAY)]
    for der in (b"", b"x" * 40, *(one.der for one in wrong)):
        with pytest.raises(ProtocolFault) as fault:
            read_certificate(der, now_ms)
        assert fault.value.code == 403


# ------------------------------------------------------------------------------------------------------ renewal
async def test_what_is_renewed_is_used_for_the_next_connection(tmp_path: Path) -> None:
    async with placed(tmp_path, MINE) as place:
        assert (await place.ask("PUT", TARGET, VALUES, by=MINE))[0] == 201
        fresh = made("zaibei")
        fresh.write(place.folder, "https")
        place.trust(made("nobody"))
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    status, _ = await place.ask("DELETE", TARGET, server=fresh)
                    break
                except ssl.SSLCertVerificationError:
                    await asyncio.sleep(0.05)
        assert status == 401
        with pytest.raises(OSError):
            await place.ask("DELETE", TARGET, by=MINE, server=fresh)
        assert place.world.values(NAME) is not None


def test_half_written_keys_are_not_used(tmp_path: Path) -> None:
    now_s = 0.0
    certificate, key = made("one").write(tmp_path, "https")
    keys = TlsKeys(TlsFiles(str(certificate), str(key)), lambda: now_s)
    first = keys.current()
    whole, _ = made("two").write(tmp_path, "other")
    certificate.write_bytes(whole.read_bytes())  # its key is not there yet
    now_s += LOOK_S
    assert keys.current() is first
    key.write_bytes((tmp_path / "other.key").read_bytes())
    assert keys.current() is first, "looked at once a second"
    now_s += LOOK_S
    assert keys.current() is not first
    with pytest.raises(OSError, match=r"HTTPS cannot be used.*none\.pem"):
        TlsKeys(TlsFiles(str(tmp_path / "none.pem"), str(key)))


# ------------------------------------------------------------------------------------------------------ bad input
async def test_who_speaks_no_tls_is_turned_away(tmp_path: Path) -> None:
    async with placed(tmp_path) as place:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(*place.addresses[0])
            writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
            assert b"HTTP" not in await reader.read()
            writer.close()
        assert (await place.ask("GET", "/livez"))[0] == 200


async def test_half_made_handshakes_count_and_end(tmp_path: Path) -> None:
    async with placed(tmp_path) as place:
        http = place.front.http
        _, writer = await asyncio.open_connection(*place.addresses[1])
        await until(lambda: bool(http.open))
        [one] = http.open
        assert one.partial_since_s is not None
        http.sweep(one.partial_since_s + http.limits.request_s_max + 1)
        await until(lambda: not http.open)
        assert http.cut_off == {"slow_request": 1}
        writer.close()


async def test_a_session_goes_on_over_another_connection_and_not_in_clear(tmp_path: Path) -> None:
    async with placed(tmp_path, MINE) as place:
        status, body = await place.ask("POST", "/api/sessions", by=MINE)
        assert (status, body["authenticated"], body["id"]) == (201, True, f"300:{WHO.handle.decode()}")
        credential = f'Authorization: Handle sessionId="{body["sessionId"]}"\r\n'
        assert (await place.ask("PUT", TARGET, VALUES, headers=credential))[0] == 201
        front = Front(place.world.port, FrontConfig(http=(("127.0.0.1", 0),)), place.front.service)
        bound = await front.start()
        try:
            assert (await ask_http(bound.http[0], "/api/sessions", "POST"))[0] == 403
            clear = await ask_http(bound.http[0], TARGET, "DELETE", kind=f"x\r\n{credential.strip()}")
            assert clear[0] == 403 and place.world.values(NAME) is not None
        finally:
            await front.stop()
