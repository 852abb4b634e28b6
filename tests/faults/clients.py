"""A client of a cluster's registrations as the runner's register: lists are appended to by reading and a conditional put."""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chaos.check.history import Value
from hosting.tenant.edge_client import Done, Found, RegistrationClient
from replica.model.edge_identity import Identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue
from replica.model.identity import fingerprint
from tests.faults.system import Told

HOSTED, PREFIX = "region-9", "88.118.9"
LIST, TEXT = b"LIST", b"TEXT"
CONFLICTS_MAX = 8  # others changed it between read and put; then the append is given up, without effect


def registrar_line(identity: Identity) -> str:
    """What pins a registrar in a hosted source's block."""
    der = x509.load_pem_x509_certificate(identity.certificate_pem).public_bytes(Encoding.DER)
    line, printed = base64.b64encode(der).decode(), fingerprint(identity.certificate_pem)
    return f'registrars = [{{ name = "{identity.name}", fingerprint = "{printed}", certificate = "{line}" }}]\n'


class ClusterRegister:
    """The port of the runner over RegistrationClient."""

    def __init__(self, client: RegistrationClient) -> None:
        self._client = client

    async def get(self, key: str) -> Told:
        try:
            return Told(True, _value(await self._read(key)), True)
        except ZaibeiError:
            return Told(None)

    async def append(self, key: str, value: int) -> Told:
        for _ in range(CONFLICTS_MAX):
            done = await self._client.append(_name(key), str(value), kind=LIST)
            if done.ok is not False or done.trouble is None or done.trouble.code is not Code.CONFLICT:
                return _told(done)
        return Told(False)

    async def put(self, key: str, value: Value) -> Told:
        return _told(await self._client.put(_name(key), [HandleValue(1, TEXT, str(value).encode())]))

    async def cas(self, key: str, wanted: Value, value: Value) -> Told:
        try:
            found = await self._read(key)
        except ZaibeiError:
            return Told(False)  # nothing was sent that changes anything
        if _value(found) != wanted:
            return Told(False, _value(found), True)
        return _told(await self._client.put(_name(key), [HandleValue(1, TEXT, str(value).encode())], found.unchanged))

    async def close(self) -> None:
        await self._client.close()

    async def _read(self, key: str) -> Found:
        [found] = await self._client.get([_name(key)])
        return found


def _name(key: str) -> str:
    return f"{PREFIX}/{key.upper()}"


def _value(found: Found) -> Value:
    if not found.found:
        return None
    [value] = found.values
    text = value.data.decode()
    return tuple(int(word) for word in text.split(",") if word) if value.type == LIST else int(text)


def _told(done: Done) -> Told:
    return Told(done.ok)
