"""Clients that strangers wrote, reading and writing against `zaibei up`: what they take our answers for.

pyhandle (research data centres) reads a record before it changes it and tells answers apart by their status and code together;
easyhandle sends whole documents. Both speak the JSON API from their own reading of it, neither knows of us.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from easyhandle.client import BasicAuthHandleClient, HandleClient
from pyhandle import handleexceptions
from pyhandle.client.resthandleclient import RESTHandleClient

from tests.integration.test_register_cli import Up, run
from tests.unit.front.test_https import RSA, jwk_of, made

PREFIX = "88.118.9"
OWNER, SECRET = f"{PREFIX}/ADMIN", "a secret of theirs"
USER = f"300:{OWNER}"
HOLDER = f"{PREFIX}/CERT"
FILE = """
[listen]
handle = ["127.0.0.1:0"]
http = ["127.0.0.1:0", "[::1]:0"]
https = ["127.0.0.1:0", "[::1]:0"]
https_certificate = "https.pem"
https_key = "https.key"
https_clients = "client.pem"
grpc = []
feed = []
beats = []
metrics = []
registration = ["127.0.0.1:0"]
[[source]]
name = "region"
prefixes = ["88.118"]
hosted = true
{registrars}
"""
ADMIN = {"format": "admin", "value": {"handle": OWNER, "index": 300, "permissions": "1" * 12}}


@dataclass(frozen=True, slots=True)
class Place:
    """A member that runs, and the addresses of its JSON API."""

    folder: Path
    v4: str
    v6: str
    tls: tuple[str, str]

    def told(self, name: str) -> dict[int, tuple[str, Any]] | None:
        """What our own client finds, by index: type and value of the data; None: there is no such handle."""
        code, found = run("resolve", name, "--server", self.v4)
        if code == 6:
            return None
        assert code == 0, found
        return {one["index"]: (one["type"], one["data"]["value"]) for one in found["values"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("strangers")
    code, mine = run("register", "identity", "--name", "tenant-9", "--identity", str(folder / "registrar"))
    assert code == 0
    made("zaibei").write(folder, "https")
    client = made(f"300:{HOLDER}", RSA)
    certificate, private = client.write(folder, "client")
    (folder / "both.pem").write_bytes(private.read_bytes() + certificate.read_bytes())
    (folder / "zaibei.toml").write_text(FILE.format(registrars=mine["block"]))
    assert run("identity", "create", "--config", str(folder / "zaibei.toml"))[0] == 0
    up = Up(folder)
    try:
        where = ["--server", up.addresses[0], "--identity", str(folder / "registrar")]
        where += ["--member-file", str(folder / "zaibei-data" / "identity" / "certificate.pem")]
        admin = {"index": 100, "type": "HS_ADMIN", "data": ADMIN}
        by_key = {"format": "admin", "value": {"handle": HOLDER, "index": 300, "permissions": "1" * 12}}
        certified = {"index": 101, "type": "HS_ADMIN", "data": by_key}
        key = {"index": 300, "type": "HS_SECKEY", "data": SECRET, "permissions": "1100"}
        public = {"index": 300, "type": "HS_PUBKEY", "data": {"format": "key", "value": jwk_of(client.key)}}
        records = ((f"0.NA/{PREFIX}", [admin, certified]), (OWNER, [admin, key]), (HOLDER, [certified, public]))
        for name, values in records:
            code, said = run("register", "put", name, "--json-values", json.dumps(values), *where)
            assert code == 0, said
        v4, v6 = (f"http://{one}" for one in up.told["http"])
        first, second = (f"https://{one}" for one in up.told["https"])
        yield Place(folder, v4, v6, (first, second))
    finally:
        up.kill()


# ------------------------------------------------------------------------------------------------------ pyhandle
def pyhandle_with(url: str, secret: str = SECRET) -> RESTHandleClient:
    return RESTHandleClient.instantiate_with_username_and_password(url, USER, secret, handleowner=USER)


def test_pyhandle_writes_and_reads_a_handles_life(place: Place) -> None:
    client, reader, name = pyhandle_with(place.v4), RESTHandleClient(place.v6), f"{PREFIX}/pyhandle"
    assert client.register_handle(name, "http://a", checksum="c1", EMAIL="a@example.cn") == name
    assert reader.retrieve_handle_record(name)["URL"] == "http://a"
    with pytest.raises(handleexceptions.HandleAlreadyExistsException):
        client.register_handle(name, "http://other")
    assert client.register_handle(name, "http://b", overwrite=True, CHECKSUM="c2", EMAIL="b@example.cn") == name

    client.modify_handle_value(name, URL="http://c", NOTE="new", ttl=60)
    client.modify_handle_value_not_add(name, CHECKSUM="c3")
    assert reader.get_value_from_handle(name, "URL") == "http://c"
    kept = {kind: value for kind, value in (place.told(name) or {}).values() if kind != "HS_ADMIN"}
    assert kept == {"URL": "http://c", "CHECKSUM": "c3", "EMAIL": "b@example.cn", "NOTE": "new"}
    with pytest.raises(handleexceptions.GenericHandleError) as refused:
        client.add_handle_value(name, URL="http://d")
    assert json.loads(refused.value.response.content)["responseCode"] == 201

    assert client.delete_handle_value(name, ["NOTE", "EMAIL"]) == name
    assert sorted(reader.retrieve_handle_record(name)) == ["CHECKSUM", "HS_ADMIN", "URL"]
    assert reader.retrieve_handle_record_json(name, indices=[1])["values"][0]["type"] == "URL"
    assert client.delete_handle(name) == name
    assert reader.retrieve_handle_record(name) is None and place.told(name) is None
    with pytest.raises(handleexceptions.HandleNotFoundException):
        client.delete_handle(name)


def test_pyhandle_registers_values_as_it_writes_them_and_names_of_its_own(place: Place) -> None:
    client = pyhandle_with(place.v6)
    entries = [
        {"index": 7, "type": "URL", "data": "http://七"},
        {"index": 9, "type": "NOTE", "data": {"format": "string", "value": "x"}},
    ]
    name = client.register_handle_json(f"{PREFIX}/登记 1", entries)
    found = place.told(name)
    assert found is not None and found[7] == ("URL", "http://七") and found[9] == ("NOTE", "x")
    made = client.generate_and_register_handle(PREFIX, "http://made")
    assert made.startswith(PREFIX) and client.get_value_from_handle(made, "URL") == "http://made"


def test_pyhandle_knows_a_refusal_for_one(place: Place) -> None:
    name = f"{PREFIX}/refused"
    for client, handle, code in (
        (pyhandle_with(place.v4, "not the secret"), name, 403),
        (pyhandle_with(place.v4), "99.1/foreign", 301),
    ):
        with pytest.raises(handleexceptions.GenericHandleError) as refused:
            client.register_handle(handle, "http://a")
        assert json.loads(refused.value.response.content)["responseCode"] == code
    assert place.told(name) is None


@pytest.mark.parametrize("family", [0, 1])
def test_pyhandle_registers_by_a_certificate_over_tls(place: Place, family: int) -> None:
    url, server = place.tls[family], str(place.folder / "https.pem")
    client = RESTHandleClient(
        handle_server_url=url,
        certificate_and_key=str(place.folder / "both.pem"),
        handleowner=f"300:{HOLDER}",
        HTTPS_verify=server,
    )
    name = f"{PREFIX}/by-certificate-{family}"
    assert client.register_handle(name, "http://a") == name
    assert client.modify_handle_value(name, URL="http://b") == name
    assert RESTHandleClient(url, HTTPS_verify=server).get_value_from_handle(name, "URL") == "http://b"
    assert client.delete_handle(name) == name and place.told(name) is None


# ------------------------------------------------------------------------------------------------------ easyhandle
def test_easyhandle_writes_and_reads_a_handles_life(place: Place) -> None:
    user = quote(USER, safe="")
    client, reader = BasicAuthHandleClient(place.v6, PREFIX, True, user, SECRET), HandleClient(place.v4, PREFIX)
    name = f"{PREFIX}/easyhandle"
    values = [
        {"index": 1, "type": "URL", "data": {"format": "string", "value": "http://a"}},
        {"index": 2, "type": "NOTE", "data": {"format": "string", "value": "n"}, "permissions": "1100"},
        {"index": 100, "type": "HS_ADMIN", "data": ADMIN},
    ]
    said = client.put_handle({"handle": name, "values": values})
    assert (said.status_code, said.json()["responseCode"]) == (201, 1)
    assert client.put_handle({"handle": name, "values": values[::2]}).status_code == 200
    assert client.put_handle({"handle": name, "values": values}).status_code == 200
    read = reader.get_handle(name)
    assert read.status_code == 200 and [one["index"] for one in read.json()["values"]] == [1, 100], "without the public's bit"
    assert [one["type"] for one in reader.get_handle_by_type(name, "URL").json()["values"]] == ["URL"]
    assert reader.get_handle_by_type(name, "NONE").json()["responseCode"] == 200

    assert reader.put_handle({"handle": name, "values": []}).status_code == 401
    wrong = BasicAuthHandleClient(place.v4, PREFIX, True, user, "wrong")
    for said in (wrong.delete_handle(name), wrong.put_handle({"handle": name, "values": values})):
        assert (said.status_code, said.json()["responseCode"]) == (403, 403)
    assert client.delete_handle(name).json() == {"responseCode": 1, "handle": name}
    assert (reader.get_handle(name).status_code, client.delete_handle(name).status_code) == (404, 404)
