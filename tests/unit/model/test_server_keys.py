"""A port's keys are handed to gRPC once, and again only when they changed: what it is handed replaces its own without a lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from replica.model.edge_identity import ensure_identity
from replica.model.edge_server_keys import ServerKeys, port_credentials, renewal
from replica.model.errors import Code, ZaibeiError


def test_what_did_not_change_is_not_handed_over_again(tmp_path: Path) -> None:
    one, two = ensure_identity(tmp_path / "1", "m1"), ensure_identity(tmp_path / "2", "m2")
    now: list[ServerKeys | None] = [ServerKeys(one.tls_key_pem, one.certificate_pem, two.certificate_pem)]
    failed: list[ZaibeiError] = []

    def keys() -> ServerKeys:
        if now[0] is None:
            raise ZaibeiError(Code.DAMAGED, "half written")
        return now[0]

    first = keys()
    ask = renewal(first, keys, failed.append)
    assert ask() is None and ask() is None
    now[0] = None
    assert ask() is None and len(failed) == 1
    now[0] = ServerKeys(two.tls_key_pem, two.certificate_pem, two.certificate_pem)
    assert ask() is not None and ask() is None
    now[0] = replace(now[0], roots_pem=one.certificate_pem)
    assert ask() is not None and ask() is None, "who may call is part of it"
    assert one.tls_key_pem.decode() not in repr(first)
    assert port_credentials(lambda: first, failed.append) is not None
