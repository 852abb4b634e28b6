"""Hosted sources and their registrars in the configuration."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ops.config import TakeoverPolicy
from ops.config.show import document
from replica.model.edge_identity import Identity
from tests.unit.ops.support import source_identity
from tests.unit.ops.test_config import faults, good


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return source_identity(tmp_path_factory.mktemp("tenant"))


def registrar(identity: Identity, **more: str) -> dict[str, str]:
    der = x509.load_pem_x509_certificate(identity.certificate_pem).public_bytes(Encoding.DER)
    line = base64.b64encode(der).decode()
    return {"name": identity.name, "fingerprint": identity.fingerprint, "certificate": line, **more}


def hosted(*registrars: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"name": "region-9", "prefixes": ["88.118.9"], "hosted": True, "registrars": [*registrars], **more}


def test_a_hosted_source_needs_no_certificate(tenant: Identity) -> None:
    config = good({"source": [hosted(registrar(tenant))]})
    [source] = config.sources
    assert (source.name, source.hosted, source.peer, source.fingerprint) == ("region-9", True, None, "")
    assert source.takeover is TakeoverPolicy.NEVER
    assert [peer.fingerprint for peer in source.registrars] == [tenant.fingerprint]
    assert config.pins().peers == (), "nobody feeds it"
    shown = document(config)
    assert shown["source"][0]["registrars"] == [{"name": tenant.name, "fingerprint": tenant.fingerprint}]
    assert "certificate" not in shown["source"][0]["registrars"][0] and "BEGIN" not in str(shown)


def test_without_registrars_it_stands_and_nobody_can_write() -> None:
    assert good({"source": [hosted()]}).sources[0].registrars == ()


def test_it_has_nothing_of_a_nodes(tenant: Identity) -> None:
    table = hosted(registrar(tenant), pull=["node.example:2643"], fingerprint=tenant.fingerprint, probe_name="88.118.9/A")
    assert [path for path, _ in faults({"source": [table]})] == [
        "source[1].fingerprint",
        "source[1].pull",
        "source[1].probe_name",
    ]


def test_a_node_may_have_registrars_for_the_time_of_a_takeover_and_needs_its_fingerprint(tenant: Identity) -> None:
    table = registrar(tenant) | {"prefixes": ["88.118"], "registrars": [registrar(tenant)]}
    assert [peer.fingerprint for peer in good({"source": [table]}).sources[0].registrars] == [tenant.fingerprint]
    table["registrars"] *= 2
    assert faults({"source": [table]})[0] == ("source[1].registrars", "an item is there twice")
    table = registrar(tenant) | {"prefixes": ["88.118"]}
    del table["fingerprint"]
    assert faults({"source": [table]}) == [("source[1].fingerprint", "is missing")]


def test_a_registrars_pin_must_be_its_certificates(tenant: Identity) -> None:
    assert faults({"source": [hosted(registrar(tenant, name="other"))]})[0][0] == "source[1].registrars[1].name"
    wrong = registrar(tenant, fingerprint="sha256:" + "0" * 64)
    assert faults({"source": [hosted(wrong)]})[0][0] == "source[1].registrars[1].fingerprint"
    assert faults({"source": [hosted(registrar(tenant, certificate="AAAA"))]})[0][0] == "source[1].registrars[1].certificate"
    for bad in ("tenant-9", {"name": "x"}, {**registrar(tenant), "more": 1}, {**registrar(tenant), "fingerprint": "x"}):
        assert faults({"source": [hosted(bad)]})[0][0] == "source[1].registrars"  # type: ignore[arg-type]


def test_a_registrar_comes_once(tenant: Identity) -> None:
    twice = faults({"source": [hosted(registrar(tenant), registrar(tenant))]})
    assert [path for path, _ in twice] == ["source[1].registrars"]


def test_the_port_is_an_address_like_the_others(tmp_path: Path) -> None:
    assert [address.port for address in good({}).listen.registration] == [2647, 2647]
    assert faults({"listen": {"registration": ["0.0.0.0:2647"]}})[0][0] == "listen.registration"
    assert faults({"listen": {"registration": ["127.0.0.1:2643"]}})


def test_one_that_leaves_names_its_node(tenant: Identity) -> None:
    table = registrar(tenant) | {"prefixes": ["88.118.9"], "hosted": True, "leaves": True, "registrars": [registrar(tenant)]}
    unnamed = {name: value for name, value in table.items() if name != "certificate"}
    [source] = good({"source": [table]}).sources
    assert (source.hosted, source.peer and source.peer.fingerprint) == (True, tenant.fingerprint)
    assert document(good({"source": [table]}))["source"][0]["leaves"] is True
    assert faults({"source": [table | {"hosted": False}]}) == [("source[1].leaves", "it does not live here")]
    assert faults({"source": [unnamed]}) == [("source[1].certificate", "is missing")]
