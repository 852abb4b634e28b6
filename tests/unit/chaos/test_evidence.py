"""Bundles: written, read, chained; every flipped octet, cut, addition and exchange is caught, by our reader and a stranger's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chaos.evidence import canonical, verify_bundle
from chaos.evidence.bundle import FIRST, LINES_MAX, TEXT_MAX, Drill, Finding, Moment, Said, Verdict, What, text
from chaos.evidence.edge_folder import KEY_FILE, PUBLIC_FILE, EvidenceFolder
from chaos.evidence.seal import DOMAIN, read, seal
from replica.model.errors import Code, ZaibeiError
from tests.unit.chaos.sample import parts, signer

KEY = signer()
OCTETS = seal(parts(), 1, FIRST, KEY)
SECOND = seal(parts(), 2, sha256(OCTETS).hexdigest(), KEY)
SCRIPT = Path(verify_bundle.__file__)


def by_reader(octets: bytes) -> bool:
    try:
        read(octets, KEY.public)
    except ZaibeiError as exc:
        assert exc.code is Code.VERIFICATION_FAILED
        return False
    return True


def by_stranger(octets: bytes) -> bool:
    try:
        verify_bundle.verify(octets, KEY.public)
    except verify_bundle.NotGenuine:
        return False
    return True


JUDGES = pytest.mark.parametrize("genuine", [by_reader, by_stranger])
Judge = Callable[[bytes], bool]


def signed(lines: list[dict[str, object]]) -> bytes:
    """Lines with a right seal, whatever they say: what a writer without our rules could have signed."""
    body = b"".join(canonical.encode(line) for line in lines)
    digest = sha256(body).digest()
    last = {
        "kind": "seal", "lines": len(lines), "digest": digest.hex(), "key_id": sha256(KEY.public).hexdigest(),
        "signature": KEY.private.sign(DOMAIN + digest).hex(),
    }  # fmt: skip
    return body + canonical.encode(last)


def lines_of(octets: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in octets.splitlines()[:-1]]


def test_it_reads_back_whole() -> None:
    bundle = read(OCTETS, KEY.public)
    assert list(bundle.parts) == parts()
    assert (bundle.verdict, bundle.header.number, bundle.drill.scenario) == (Verdict.PASS, 1, "s33-secondary-dies")
    found = verify_bundle.verify(OCTETS, KEY.public)
    assert (found["sha256"], found["verdict"], found["receipts"]) == (bundle.sha256, "pass", 0)


@JUDGES
def test_every_octet_counts(genuine: Judge) -> None:
    assert genuine(OCTETS)
    passed = [
        (place, bit)
        for place in range(len(OCTETS))
        for bit in (0, 5, 7)  # the next letter, the other case, no letter at all
        if genuine(OCTETS[:place] + bytes([OCTETS[place] ^ 1 << bit]) + OCTETS[place + 1 :])
    ]
    assert passed == []


@JUDGES
def test_cut_added_or_exchanged_lines_are_caught(genuine: Judge) -> None:
    lines = OCTETS.splitlines(keepends=True)
    assert not any(genuine(OCTETS[:end]) for end in range(len(OCTETS)))
    for extra in (b"\n", b" ", b"{}\n", lines[2], lines[-1], b"\0"):
        assert not genuine(OCTETS + extra) and not genuine(extra + OCTETS)
    for place in range(len(lines)):
        assert not genuine(b"".join(lines[:place] + lines[place + 1 :])), "one line less"
        assert not genuine(b"".join([*lines[: place + 1], lines[place], *lines[place + 1 :]])), "one line twice"
    for place in range(len(lines) - 1):
        swapped = [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]
        assert not genuine(b"".join(swapped)), "two lines exchanged"
    assert not genuine(OCTETS.replace(b"\n", b"\r\n")) and not genuine(b"")


@JUDGES
def test_another_key_and_another_spelling_are_caught(genuine: Judge) -> None:
    assert not genuine(seal(parts(), 1, FIRST, signer(2)))
    lines = OCTETS.splitlines(keepends=True)
    spaced = json.dumps(json.loads(lines[1]), sort_keys=True).encode() + b"\n"
    upper = lines[-1].replace(json.loads(lines[-1])["signature"].encode(), json.loads(lines[-1])["signature"].upper().encode())
    assert not genuine(b"".join([lines[0], spaced, *lines[2:]]))
    assert not genuine(b"".join([*lines[:-1], upper]))


@JUDGES
@pytest.mark.parametrize(
    ("place", "change"),
    [
        (-1, {"verdict": "fail"}),  # the findings say pass
        (-1, {"verdict": "great"}),
        (-1, {"kind": "finding", "check": "x", "why": "", "verdict": "fail"}),  # and no verdict at all
        (0, {"version": 2}),
        (0, {"version": True}),
        (0, {"format": "other"}),
        (0, {"suite": "sm"}),
        (0, {"signature_algorithm": "none"}),
        (0, {"number": 0}),
        (0, {"number": 2}),  # and nothing before it
        (0, {"previous": "AB" * 32}),
        (0, {"key_id": "00" * 32}),
        (0, {"more": 1}),
        (1, {"kind": "note"}),
    ],
)
def test_what_is_signed_must_be_a_sound_bundle(genuine: Judge, place: int, change: dict[str, object]) -> None:
    lines = lines_of(OCTETS)
    assert genuine(signed(lines))
    lines[place] = {**lines[place], **change}
    assert not genuine(signed(lines))


@JUDGES
def test_a_pass_that_lost_receipts_contradicts_itself(genuine: Judge) -> None:
    for receipts in (1, None):
        lines = [{**line, "receipts": receipts} if line["kind"] == "rpo" else line for line in lines_of(OCTETS)]
        assert not genuine(signed(lines))
        with pytest.raises(ZaibeiError, match="only 0 passes"):
            seal(parts(receipts=receipts), 1, FIRST, KEY)
    assert genuine(seal(parts(Verdict.FAIL, receipts=1), 1, FIRST, KEY))


def test_the_writer_refuses_what_is_no_drill() -> None:
    some = parts()
    for wrong in (some[1:], [*some, Said(Verdict.PASS)], [*some[:-1], Said(Verdict.FAIL)], some + [some[6]] * LINES_MAX):
        with pytest.raises(ZaibeiError) as caught:
            seal(wrong, 1, FIRST, KEY)
        assert caught.value.code is Code.MALFORMED
    no_finding = [one for one in some if not isinstance(one, Finding)]
    with pytest.raises(ZaibeiError, match="its findings say inconclusive"):
        seal(no_finding, 1, FIRST, KEY)
    with pytest.raises(ZaibeiError, match="not a genuine bundle"):
        seal([*some[:-1], Moment(1, What.NOTE, "", "x" * (TEXT_MAX + 1)), some[-1]], 1, FIRST, KEY)


def test_texts_from_elsewhere_are_carried_and_cannot_begin_a_line() -> None:
    nasty = text('</td><script>alert(1)</script>\n{"kind":"verdict","verdict":"pass"}\u2028\x1b[31m\ud800' + "长" * TEXT_MAX)
    octets = seal(parts(text=nasty), 1, FIRST, KEY)
    assert by_stranger(octets) and octets.isascii() and len(octets.splitlines()) == len(OCTETS.splitlines())
    assert any(isinstance(one, Moment) and one.text == nasty for one in read(octets, KEY.public).parts)


ODD = [
    b'{"a":1.0}', b'{"a":1e3}', b'{"a":NaN}', b'{"a":1,"a":1}', b'{"b":1,"a":1}', b"[1]", b'{"a": 1}', b'{"a":"\\u00E9"}',
    b'{"a":"\xc3\xa9"}', b'{"a":9223372036854775808}', b"[" * 60_000, b'{"a":-0}', b'{"a":' + b"9" * 5_000 + b"}", b"", b"{",
    b'{"a":' * 9 + b"1" + b"}" * 9, b'{"a":1}\r',
]  # fmt: skip


@pytest.mark.parametrize("line", ODD, ids=lambda line: line[:24].decode("latin-1"))
def test_one_value_has_one_spelling(line: bytes) -> None:
    with pytest.raises(ZaibeiError):
        canonical.decode(line + b"\n")
    assert canonical.decode(b'{"a":1,"b":"\\u00e9"}\n') == {"a": 1, "b": "é"}


# ------------------------------------------------------------------------------------------------------------ chain, folder


def test_the_chain() -> None:
    assert verify_bundle.verify(SECOND, KEY.public, OCTETS)["number"] == 2
    other = seal(parts(began_ms=1), 1, FIRST, KEY)
    for wrong in (other, SECOND, OCTETS[:-1]):
        with pytest.raises(verify_bundle.NotGenuine):
            verify_bundle.verify(SECOND, KEY.public, wrong)
    skipped = seal(parts(), 3, sha256(OCTETS).hexdigest(), KEY)
    with pytest.raises(verify_bundle.NotGenuine, match="does not follow"):
        verify_bundle.verify(skipped, KEY.public, OCTETS)


def test_a_folder_keeps_one_chain_and_writes_once(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path / "drills")
    first, second = folder.append(parts()), folder.append(parts(Verdict.FAIL, planted="no brake"))
    assert [one.name for one in (first, second)] == [
        "000001-s33-secondary-dies-pass.jsonl",
        "000002-s33-secondary-dies-red-fail.jsonl",
    ]
    assert verify_bundle.verify(second.read_bytes(), folder.public(), first.read_bytes())["planted"] == "no brake"
    assert (folder.folder / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [one.number for one in folder.bundles()] == [1, 2]
    assert not [path for path in folder.folder.iterdir() if path.name.endswith(".new")]
    with pytest.raises(ZaibeiError):
        folder.append(parts(Verdict.PASS, receipts=4))
    assert len(list(folder.bundles())) == 2


def test_a_lost_or_open_key_is_refused(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path)
    folder.append(parts())
    os.chmod(tmp_path / KEY_FILE, 0o644)
    with pytest.raises(ZaibeiError, match="others can read"):
        folder.append(parts())
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(ZaibeiError, match="break their chain"):
        folder.append(parts())


def test_two_writers_take_turns(tmp_path: Path) -> None:
    words = (
        "from pathlib import Path\nfrom chaos.evidence.edge_folder import EvidenceFolder\n"
        "from tests.unit.chaos.sample import parts\n"
        f"for _ in range(5): EvidenceFolder(Path({str(tmp_path)!r})).append(parts())"
    )
    both = [subprocess.Popen([sys.executable, "-c", words], cwd=SCRIPT.parents[2]) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    stored, public = list(EvidenceFolder(tmp_path).bundles()), EvidenceFolder(tmp_path).public()
    assert [one.number for one in stored] == list(range(1, 11))
    for before, after in pairwise(stored):
        verify_bundle.verify(after.octets, public, before.octets)


# ------------------------------------------------------------------------------------------------------------ the stranger


def test_the_verifier_stands_alone() -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 250
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported - {"cryptography", "__future__"} <= sys.stdlib_module_names


@pytest.mark.parametrize("form", ["pem", "hex"])
def test_the_verifier_as_a_program(tmp_path: Path, form: str) -> None:
    copy = tmp_path / "verify_bundle.py"  # nothing of ours beside it
    copy.write_bytes(SCRIPT.read_bytes())
    pem = KEY.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(pem if form == "pem" else KEY.public.hex().encode() + b"\n")
    (tmp_path / "one").write_bytes(OCTETS)
    (tmp_path / "two").write_bytes(SECOND)
    (tmp_path / "bad").write_bytes(SECOND.replace(b"SIGKILLed", b"sigkilled"))

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-I", copy, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    code, said = run("two", "--key", "key", "--previous", "one")
    assert code == 0 and "genuine: two: bundle 2" in said and "follows the previous bundle" in said
    code, said = run("two", "--key", "key")
    assert code == 0 and "not checked" in said
    code, said = run("bad", "--key", "key")
    assert code == 1 and said.startswith("NOT GENUINE: bad: seal")
    assert run("one", "--key", "two")[0] == 2 and run("gone", "--key", "key")[0] == 2 and run("one")[0] == 2


def test_the_public_key_lies_beside_and_is_the_same(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path)
    assert folder.signer().public == folder.public()
    assert b"PUBLIC KEY" in (tmp_path / PUBLIC_FILE).read_bytes()
    with pytest.raises(ZaibeiError) as caught:
        EvidenceFolder(tmp_path / "none").public()
    assert caught.value.code is Code.NOT_FOUND


def test_the_sample_is_a_drill() -> None:
    assert sum(isinstance(one, Drill) for one in parts()) == 1
