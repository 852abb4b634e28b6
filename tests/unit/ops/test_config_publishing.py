"""The sections that say where a takeover is made known: what stands in the configuration, every fault, and the adapters of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hosting.front.edge_site_key import ensure_site_key
from ops.config import MemberConfig, load_config
from ops.config.address import Address
from ops.config.check import check
from ops.config.edge_load import surroundings
from ops.config.faults import ConfigError
from ops.config.show import document
from ops.publishing import key_of, publishers_of
from ops.up import key_path, own_site
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import Protocol, decode_site
from replica.model.handle.values import Reference
from replica.model.signing import Signer

ISSUER = {"name": "beijing", "public_key": "ab" * 32}
FOLDER = {"name": "files", "folder": "requests", "top_level": "beijing"}
RECORD = {"name": "records", "server": "192.0.2.10:2641", "admin": "300:0.NA/88.118", "secret_file": "secret"}
ANNOUNCE = {"name": "routes", "program": "/usr/local/sbin/announce"}
Root = dict[str, Any]


def whole(**changes: Any) -> Root:
    return {"top_level": [ISSUER], "request_folder": [FOLDER], "top_record": [RECORD], "announce": [ANNOUNCE]} | changes


@pytest.fixture
def good(tmp_path: Path) -> Callable[[Root], MemberConfig]:
    (tmp_path / "secret").write_bytes(b"of the record\n")
    (tmp_path / "secret").chmod(0o600)
    for name, key in (("rsa", rsa.generate_private_key(65_537, 2_048)), ("ec", ec.generate_private_key(ec.SECP256R1()))):
        (tmp_path / f"{name}.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (tmp_path / f"{name}.pem").chmod(0o600)
    return lambda root: check(root, "test.toml", surroundings(tmp_path))[0]


def test_every_adapter_is_made_and_shown(good: Callable[[Root], MemberConfig], tmp_path: Path) -> None:
    config = good(whole(recursive=[{"name": "national", "url": "http://127.0.0.1:1"}]))
    signer = Signer(Ed25519PrivateKey.generate())
    assert [one.name for one in publishers_of(config, signer, b"")] == ["national", "files", "records", "routes"]
    [folder], [record] = config.request_folders, config.top_records
    assert (folder.folder, folder.answers) == (tmp_path / "requests", tmp_path / "requests")
    key = key_of(record)()
    assert (key.at, key.secret) == (Reference(b"0.NA/88.118", 300), b"of the record")
    shown = document(config)
    assert shown["top_record"][0]["admin"] == "300:0.NA/88.118" and "of the record" not in str(shown)
    assert shown["announce"] == [{"name": "routes", "program": "/usr/local/sbin/announce", "run_s": 4}]
    assert shown["request_folder"][0]["top_level"] == "beijing"


def test_a_key_pair_instead_of_a_secret(good: Callable[[Root], MemberConfig], tmp_path: Path) -> None:
    record = {**RECORD, "key_file": "rsa.pem"}
    del record["secret_file"]
    [found] = good(whole(top_record=[record])).top_records
    assert key_of(found)().private is not None
    (tmp_path / "rsa.pem").unlink()
    with pytest.raises(ZaibeiError, match="the key of records") as gone:
        key_of(found)()
    assert gone.value.code is Code.INVALID_CONFIG


@pytest.mark.parametrize(
    ("changes", "path", "what"),
    [
        ({"announce": [{**ANNOUNCE, "name": "files"}]}, "announce[1].name", "already the name of a [[request_folder]]"),
        ({"announce": [{**ANNOUNCE, "program": "announce"}]}, "announce[1].program", "no absolute path"),
        ({"announce": [{**ANNOUNCE, "run_s": 5}]}, "announce[1].run_s", "out of range"),
        ({"top_level": []}, "request_folder[1].top_level", "is no [[top_level]]"),
        ({"request_folder": [{"name": "f", "folder": "r"}]}, "request_folder[1].top_level", "nothing could confirm"),
        ({"request_folder": [{"name": "f"}]}, "request_folder[1].folder", "is missing"),
        ({"top_record": [{**RECORD, "admin": "88.118"}]}, "top_record[1].admin", "names no key"),
        ({"top_record": [{**RECORD, "key_file": "rsa.pem"}]}, "top_record[1].secret_file", "one of secret_file and key_file"),
        ({"top_record": [{**RECORD, "secret_file": "gone"}]}, "top_record[1].secret_file", "cannot be read"),
        ({"top_record": [{**RECORD, "secret_file": "", "key_file": "ec.pem"}]}, "top_record[1].key_file", "is no RSA key"),
        ({"top_record": [{**RECORD, "secret_file": "", "key_file": "secret"}]}, "top_record[1].key_file", "is no private key"),
        ({"top_record": [{**RECORD, "server": "192.0.2.10:0"}]}, "top_record[1].server", "cannot be connected to"),
    ],
)
def test_each_fault_is_named(good: Callable[[Root], MemberConfig], changes: Root, path: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        good(whole(**changes))
    assert [fault.path for fault in caught.value.faults] == [path] and what in caught.value.faults[0].what


def test_a_secret_that_others_may_read_is_refused(good: Callable[[Root], MemberConfig], tmp_path: Path) -> None:
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        good(whole())
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "secret").write_bytes(b"\n")
    with pytest.raises(ConfigError, match="1 to 1024 octets"):
        good(whole())


def test_a_file_with_them_is_read(good: Callable[[Root], MemberConfig], tmp_path: Path) -> None:
    (tmp_path / "zaibei.toml").write_text(
        '[[request_folder]]\nname = "files"\nfolder = "requests"\nanswers = "answers"\nresolver = "[::1]:2641"\n'
    )
    [found] = load_config(tmp_path / "zaibei.toml").config.request_folders
    assert str(found.resolver) == "[::1]:2641" and found.answers == tmp_path / "answers" and found.top_level == ""


def test_our_site_names_what_listens_tls_last(good: Callable[[Root], MemberConfig], tmp_path: Path) -> None:
    """Clients that take the first interface, or the first TCP one, go on as before."""
    here = Address("192.0.2.5", 2641)
    bound = {"handle": [here], "http": [Address("192.0.2.5", 8000)], "https": [Address("192.0.2.5", 8443)]}

    def named(config: MemberConfig, bound: Mapping[str, Sequence[Address]]) -> list[tuple[Protocol, int]]:
        return [(one.protocol, one.port) for one in decode_site(own_site(config, bound)).servers[0].interfaces]

    plain = [(Protocol.TCP, 2641), (Protocol.UDP, 2641), (Protocol.HTTP, 8000)]
    config = good(whole(site={"addresses": ["192.0.2.5:2641"]}))
    assert named(config, bound) == [*plain, (Protocol.HTTPS, 8443)]
    assert named(config, {"handle": [here], "http": bound["http"]}) == plain, "where nothing listens nothing is named"
    listened = replace(config, site=replace(config.site, addresses=()))
    assert named(listened, bound) == [*plain, (Protocol.HTTPS, 8443)]
    elsewhere = [Address("192.0.2.6", 8443)]
    assert named(listened, bound | {"https": elsewhere}) == plain, "at another address than the site's"
    behind = good(whole(site={"addresses": ["192.0.2.5:2641"], "https_port": 443}))
    assert (
        named(behind, bound) == [*plain, (Protocol.HTTPS, 443)] and document(behind)["site"]["addresses"][0]["https_port"] == 443
    )


def test_the_key_of_our_site_is_named_checked_and_shown_by_its_path_alone(
    good: Callable[[Root], MemberConfig], tmp_path: Path
) -> None:
    assert good(whole()).site.key_file is None
    config = good(whole(site={"key_file": "rsa.pem"}))
    assert config.site.key_file == tmp_path / "rsa.pem" == key_path(config)
    assert document(config)["site"]["key_file"] == str(tmp_path / "rsa.pem")
    shown = decode_site(own_site(config, {}, ensure_site_key(key_path(config)).public)).servers[0]
    assert shown.public_key == ensure_site_key(tmp_path / "rsa.pem").public
    for name, what in (("ec.pem", "no RSA key"), ("none", "cannot be read"), ("short.pem", "another length")):
        if name == "short.pem":
            short = rsa.generate_private_key(65_537, 1_024)
            (tmp_path / name).write_bytes(short.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            (tmp_path / name).chmod(0o600)
        with pytest.raises(ConfigError) as told:
            good(whole(site={"key_file": name}))
        assert [(fault.path, what in fault.what) for fault in told.value.faults] == [("site.key_file", True)]
    (tmp_path / "rsa.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        good(whole(site={"key_file": "rsa.pem"}))
