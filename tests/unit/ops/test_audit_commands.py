"""`zaibei audit verify`: an export is sound, and every kind of tampering with it ends in 9."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from hosting.tenant.denials import Denials
from hosting.tenant.edge_denials import DenialBook
from ops.cli.audit import audit, faults_of, opened_of
from ops.cli.exits import Exit
from ops.proofs import MemberProofs, page_of
from replica.member.member import Member
from replica.model.audit import FORMAT, AuditHead, chained
from replica.model.audit_personal import SHOWN_MASK
from replica.model.audit_seal import NO_KEYS, AuditKeys, keys_text
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.sealed import read_sealed, write_sealed
from replica.store.edge_audit import AuditPage
from tests.unit.model.test_audit import GROUP, chain_of
from tests.unit.model.test_audit_seal import KEY, KEYS, OTHER, PERSONAL, acts, lines_of, sealed_acts


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


def sealed_export(member: Identity) -> bytes:
    lines, head = lines_of(sealed_acts())
    about = {"group": GROUP, "first": 1, "before": "00" * 32, "last": str(head), "stated_ms": 1}
    return b"".join(write_sealed(FORMAT, "member-1", about, lines, member.signer, member.certificate_pem))


def test_sealed_words_are_verified_without_the_key_and_with_it_down_to_the_words(tmp_path: Path, member: Identity) -> None:
    path, pem = tmp_path / "a.audit", tmp_path / "member.pem"
    path.write_bytes(sealed_export(member))
    pem.write_bytes(member.certificate_pem)
    right, wrong = tmp_path / "audit.key", tmp_path / "other.key"
    for file, key in ((right, KEY), (wrong, OTHER)):
        file.write_text(keys_text((key,)))
        file.chmod(0o600)
    total = len(sealed_acts())
    for words, opened in (((), 0), (("--key", str(right)), total), (("--key", str(wrong)), 0)):
        code, document = run(path, "--trust", str(pem), *words)
        assert (code, document["words"]) == (Exit.DONE, {"sealed": total, "opened": opened})


def test_words_that_were_put_under_another_record_are_found_with_the_key(tmp_path: Path, member: Identity) -> None:
    """By whoever can seal and chain anew, and lacks the audit's key."""
    lines = lines_of(sealed_acts())[0]
    fields = json.loads(lines[0])
    fields["sealed"] = json.loads(lines[1])["sealed"]
    made = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    about = {"group": GROUP, "first": 1, "before": "00" * 32, "last": str(AuditHead(1, chained(bytes(32), made))), "stated_ms": 1}
    octets = b"".join(write_sealed(FORMAT, "member-1", about, [made], member.signer, member.certificate_pem))
    found = read_sealed(octets, FORMAT)
    assert faults_of(found) == [] and [one.number for one in opened_of(found, KEYS).faults] == [1]


def page(lines: list[bytes], head: AuditHead) -> AuditPage:
    return AuditPage(head, lines)


def test_what_is_told_is_masked_and_found_by_the_whole_name() -> None:
    plain, sealed = lines_of(acts()), lines_of(sealed_acts())
    for lines, head in (plain, sealed):
        told = page_of(GROUP, page(lines, head), 0, KEYS)
        assert not any(word in "".join(told["records"]) for word in PERSONAL)
        assert (told["closed"], told["last"], len(told["records"])) == (0, head.number, len(lines))
        mine = page_of(GROUP, page(lines, head), 0, KEYS, "wang.fang")
        assert [json.loads(one)["kind"] for one in mine["records"]] == ["decision", "ladder"]
        assert mine["last"] == head.number and not any(word in "".join(mine["records"]) for word in PERSONAL)
        assert page_of(GROUP, page(lines, head), 0, KEYS, "wang.f")["records"] == []
    opened = page_of(GROUP, page(*sealed), 0, KEYS, plain=True)["records"]
    assert ["li.wei", "wang.fang"] in [json.loads(one)["who"] for one in opened]
    closed = page_of(GROUP, page(*sealed), 0, NO_KEYS, plain=True)
    assert closed["closed"] == len(sealed[0]) and json.loads(closed["records"][0])["who"] == [SHOWN_MASK]


class Showing(MemberProofs):
    """A member with a page of records, and what its own audit has of them."""

    def __init__(self, folder: Path, keys: AuditKeys) -> None:
        self._denials = DenialBook(folder, Denials(), lambda: 7, keys=keys)
        self._member = cast(Member, SimpleNamespace(settings=SimpleNamespace(audit_keys=keys), copies={GROUP: None}))

    def _audit(self, group: str, after: int, limit: int) -> AuditPage:
        lines, head = lines_of(sealed_acts())
        return AuditPage(head, lines[after : after + limit])


async def test_words_are_shown_for_a_reason_that_is_kept_first(tmp_path: Path) -> None:
    showing = Showing(tmp_path, KEYS)
    told = await showing.audit_reveal(GROUP, [3, 1], "zhao", "case 17")
    assert [json.loads(one)["number"] for one in told["records"]] == [1, 3] and "li.wei" in told["records"][0]
    kept = [json.loads(line) for line in showing._denials.page(0, 9)[1]]  # type: ignore[union-attr]
    assert [(one["kind"], one["evidence"]["numbers"]) for one in kept] == [("reveal", [1, 3])]
    assert KEYS.open(kept[0]) == {"who": ["zhao"], "why": "case 17"}
    for by, why in (("", "case"), ("zhao", " ")):
        with pytest.raises(ZaibeiError, match="for what reason"):
            await showing.audit_reveal(GROUP, [1], by, why)


async def test_where_the_act_cannot_be_kept_or_no_key_is_nothing_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ZaibeiError) as raised:
        await Showing(tmp_path, NO_KEYS).audit_reveal(GROUP, [1], "zhao", "case 17")
    assert raised.value.code is Code.NOT_AUTHORISED
    showing = Showing(tmp_path / "not there", KEYS)
    with pytest.raises(OSError):
        await showing.audit_reveal(GROUP, [1], "zhao", "case 17")


def test_reveal_wants_a_name_and_a_reason() -> None:
    for words in (["--reveal"], ["--reveal", "--by", "zhao"], ["--reveal", "--by", "zhao", "--why", " "]):
        result = CliRunner().invoke(audit, ["list", GROUP, *words])
        assert result.exit_code == Exit.USAGE


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
