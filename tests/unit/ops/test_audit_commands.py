"""`zaibei audit verify`: an export is sound, and every kind of tampering with it ends in 9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops.cli.audit import audit, faults_of
from ops.cli.exits import Exit
from replica.model.audit import FORMAT
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.sealed import read_sealed, write_sealed
from tests.unit.model.test_audit import GROUP, chain_of


@pytest.fixture
def member(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


def export(member: Identity, **changes: Any) -> bytes:
    lines, head = chain_of()
    about = {"group": GROUP, "first": 1, "before": "00" * 32, "last": str(head), "stated_ms": 1, **changes}
    return b"".join(write_sealed(FORMAT, "member-1", about, lines, member.signer, member.certificate_pem))


def run(path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(audit, ["verify", str(path), *words, "--json"], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value or 0), json.loads(result.stdout)


def test_a_sound_export_passes_with_trust_and_is_unknown_without(tmp_path: Path, member: Identity) -> None:
    path, pem = tmp_path / "a.audit", tmp_path / "member.pem"
    path.write_bytes(export(member))
    pem.write_bytes(member.certificate_pem)
    _, head = chain_of()
    assert run(path, "--trust", str(pem), "--head", str(head))[0] == Exit.DONE
    assert run(path)[0] == Exit.UNKNOWN
    other = ensure_identity(tmp_path / "other", "member-1")
    pem.write_bytes(other.certificate_pem)
    code, document = run(path, "--trust", str(pem))
    assert (code, document["sealed_by"]) == (Exit.UNKNOWN, None)


def test_another_members_head_must_lie_on_the_chain(tmp_path: Path, member: Identity) -> None:
    path, pem = tmp_path / "a.audit", tmp_path / "member.pem"
    path.write_bytes(export(member))
    pem.write_bytes(member.certificate_pem)
    _, earlier = chain_of(7)
    assert run(path, "--trust", str(pem), "--head", str(earlier))[0] == Exit.DONE
    code, document = run(path, "--trust", str(pem), "--head", f"7:{'ab' * 32}")
    assert (code, document["faults"][0]["fault"]) == (Exit.VERIFICATION_FAILED, "changed")


def test_changed_missing_reordered_and_cut_records_are_found(tmp_path: Path, member: Identity) -> None:
    octets = export(member)
    head, *lines, seal = octets.splitlines(keepends=True)
    tampered = {
        "changed": [head, *lines[:3], lines[3].replace(b"probes", b"prober"), *lines[4:], seal],
        "missing": [head, *lines[:3], *lines[4:], seal],
        "reordered": [head, lines[1], lines[0], *lines[2:], seal],
        "cut": [head, *lines[:5]],
    }
    for fault, parts in tampered.items():
        path = tmp_path / fault
        path.write_bytes(b"".join(parts))
        code, document = run(path)
        assert code == Exit.VERIFICATION_FAILED, fault
        assert fault in {one["fault"] for one in document["faults"]}, fault


def test_a_changed_record_under_a_new_seal_is_found_by_its_chain(tmp_path: Path, member: Identity) -> None:
    lines, head = chain_of()
    lines[3] = lines[3].replace(b"probes", b"prober")
    about = {"group": GROUP, "first": 1, "before": "00" * 32, "last": str(head), "stated_ms": 1}
    octets = b"".join(write_sealed(FORMAT, "member-1", about, lines, member.signer, member.certificate_pem))
    assert [one.fault for one in faults_of(read_sealed(octets, FORMAT))] == ["changed"]


def test_every_octet_counts(member: Identity) -> None:
    octets = export(member)
    body = octets.rindex(b"\n", 0, -1)
    for at in range(0, len(octets), 11):
        bad = bytearray(octets)
        bad[at] ^= 0x01
        try:
            found = read_sealed(bytes(bad), FORMAT)
            faults = bool(faults_of(found)) or found.seal is None or found.seal.by(member.signer.public) is False
        except ZaibeiError:
            faults = True
        assert faults or at > body, f"octet {at}"
