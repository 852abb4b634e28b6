"""Checks a drill's evidence bundle, alone: `python verify_bundle.py BUNDLE --key FILE [--previous BUNDLE]`.

Needs Python 3.11, the package `cryptography`, and nothing of the system that wrote the bundle. FILE is the Ed25519 public key of
the signer, as PEM or as 64 hexadecimal digits; get it from whoever ran the drill, not from beside the bundle.

A bundle is ASCII lines of canonical JSON (keys sorted, no spaces, whole numbers). The first line is the header, the last the
seal; the seal signs the SHA-256 of every octet before it, and the header names the SHA-256 of the whole bundle before this one.

exit 0  every octet is as it was signed, and what it says does not contradict itself
exit 1  it is not genuine: the reason is printed
exit 2  wrong use
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

FORMAT, VERSION, SUITE, SIGNATURE, DIGEST = "zaibei-evidence", 1, "std", "Ed25519", "SHA-256"
DOMAIN = b"zaibei-evidence-1\0"
FIRST = "0" * 64
BUNDLE_OCTETS_MAX = 8 * 1024 * 1024
LINE_OCTETS_MAX = 64 * 1024
LINES_MAX = 20_000
HEADER_KEYS = {
    "kind", "format", "version", "suite", "signature_algorithm", "digest_algorithm", "number", "previous", "key_id",
}  # fmt: skip
SEAL_KEYS = {"kind", "lines", "digest", "key_id", "signature"}
ONCE = ("drill", "rpo", "red", "verdict")  # kinds that stand in a bundle exactly once
KINDS = {*ONCE, "hash", "fault", "moment", "lookup", "lane", "figure", "digest", "finding"}
HEX_64, HEX_128 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{128}")


class NotGenuine(Exception):
    """The first thing that is wrong."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise NotGenuine(why)


def read_key(octets: bytes) -> bytes:
    """Raw public key, 32 octets, of PEM or hexadecimal text. Raises ValueError."""
    text = octets.strip()
    if HEX_64.fullmatch(text.decode("ascii", "replace").lower()):
        return bytes.fromhex(text.decode("ascii"))
    key = load_pem_public_key(text)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("it is another kind of key than Ed25519")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def whole_numbers_only(text: str) -> Any:
    raise NotGenuine(f"{text[:40]} is no whole number")


def line_value(line: bytes, number: int) -> dict[str, Any]:
    """A line as an object, if it has the one spelling that such an object has."""
    need(len(line) <= LINE_OCTETS_MAX, f"line {number}: longer than {LINE_OCTETS_MAX} octets")
    try:
        value = json.loads(line, parse_float=whole_numbers_only, parse_constant=whole_numbers_only)
        spelled = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"
    except (ValueError, RecursionError) as exc:
        raise NotGenuine(f"line {number}: no JSON: {exc}") from exc
    need(isinstance(value, dict) and spelled == line, f"line {number}: not spelled canonically")
    found: dict[str, Any] = value
    return found


def check_header(header: dict[str, Any], key_id: str) -> None:
    need(set(header) == HEADER_KEYS and header["kind"] == "header", "line 1: it is no header")
    said = tuple(header[name] for name in ("format", "version", "suite", "signature_algorithm", "digest_algorithm"))
    known = (FORMAT, VERSION, SUITE, SIGNATURE, DIGEST)
    need(said == known and type(header["version"]) is int, f"line 1: format {said}; this verifier knows {known}")
    need(type(header["number"]) is int and header["number"] >= 1, "line 1: its number is none")
    need(is_hex(header["previous"], HEX_64), "line 1: the hash of the previous bundle is none")
    need((header["number"] == 1) == (header["previous"] == FIRST), "line 1: only bundle 1 has none before it")
    need(header["key_id"] == key_id, "line 1: signed by another key than the one that was given")


def check_seal(seal: dict[str, Any], before: list[bytes], public: bytes, key_id: str) -> None:
    need(set(seal) == SEAL_KEYS and seal["kind"] == "seal", "the last line is no seal: the bundle is cut, or something was added")
    need(type(seal["lines"]) is int and seal["lines"] == len(before), "seal: another number of lines than was signed")
    digest = sha256(b"".join(before)).digest()
    need(seal["digest"] == digest.hex(), "seal: the lines are not those that were signed")
    need(seal["key_id"] == key_id, "seal: signed by another key than the one that was given")
    need(is_hex(seal["signature"], HEX_128), "seal: its signature is none")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(seal["signature"]), DOMAIN + digest)
    except InvalidSignature as exc:
        raise NotGenuine("seal: the signature is not this key's over these lines") from exc


def is_hex(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def check_parts(parts: list[dict[str, Any]]) -> None:
    """What it says must not contradict itself: the verdict is the worst of its findings, and a pass lost no receipt."""
    kinds = [part.get("kind") for part in parts]
    for kind in kinds:
        need(isinstance(kind, str) and kind in KINDS, f"a line of unknown kind {kind!r}")
    for kind in ONCE:
        need(kinds.count(kind) == 1, f"{kinds.count(kind)} lines of kind {kind}, exactly one belongs there")
    findings = [part.get("verdict") for part in parts if part["kind"] == "finding"]
    need(all(one in ("pass", "fail", "inconclusive") for one in findings), "a finding without a verdict")
    order = ("fail", "inconclusive", "pass")
    worst = next((one for one in order if one in findings), "inconclusive")
    [said] = [part.get("verdict") for part in parts if part["kind"] == "verdict"]
    need(said == worst, f"it says {said} and its findings say {worst}")
    [rpo] = [part for part in parts if part["kind"] == "rpo"]
    need(said != "pass" or rpo.get("receipts") == 0, "it says pass and receipts were not honoured")


def verify(octets: bytes, public: bytes, previous: bytes | None = None) -> dict[str, Any]:
    """Everything about one bundle.

    Args:
        octets: the whole file.
        public: Ed25519 public key, 32 octets.
        previous: the whole bundle before it, signed by the same key; None: its place in the chain is not checked.
    Returns:
        {"number", "previous", "scenario", "verdict", "planted", "receipts", "lines", "sha256"}.
    Raises:
        NotGenuine: with the first thing that is wrong.
    """
    need(len(octets) <= BUNDLE_OCTETS_MAX, f"{len(octets)} octets, at most {BUNDLE_OCTETS_MAX}")
    need(octets.endswith(b"\n"), "its last line has no end: the bundle is cut")
    lines = [line + b"\n" for line in octets[:-1].split(b"\n")]
    need(2 <= len(lines) <= LINES_MAX, f"{len(lines)} lines; a bundle has 2 to {LINES_MAX}")
    values = [line_value(line, number) for number, line in enumerate(lines, 1)]
    key_id = sha256(public).hexdigest()
    check_header(values[0], key_id)
    check_seal(values[-1], lines[:-1], public, key_id)
    check_parts(values[1:-1])
    if previous is not None:
        before = verify(previous, public)
        need(values[0]["previous"] == before["sha256"], "the bundle given as previous is not the one that stood before it")
        need(values[0]["number"] == before["number"] + 1, "its number does not follow the previous one's")
    one = {part["kind"]: part for part in values[1:-1] if part["kind"] in ONCE}
    return {
        "number": values[0]["number"],
        "previous": values[0]["previous"],
        "scenario": one["drill"].get("scenario"),
        "planted": one["drill"].get("planted"),
        "verdict": one["verdict"].get("verdict"),
        "receipts": one["rpo"].get("receipts"),
        "lines": len(lines),
        "sha256": sha256(octets).hexdigest(),
    }


def read_file(path: Path, most: int) -> bytes:
    """Raises OSError."""
    with path.open("rb") as file:
        return file.read(most + 1)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks a drill's evidence bundle, alone and offline.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", type=Path, required=True, help="public key of the signer: PEM or 64 hexadecimal digits")
    parser.add_argument("--previous", type=Path, help="the bundle before it in the chain")
    given = parser.parse_args(words)
    try:
        public = read_key(read_file(given.key, LINE_OCTETS_MAX))
        octets = read_file(given.bundle, BUNDLE_OCTETS_MAX)
        previous = None if given.previous is None else read_file(given.previous, BUNDLE_OCTETS_MAX)
    except (OSError, ValueError) as exc:
        print(f"verify_bundle: {exc}", file=sys.stderr)
        return 2
    try:
        found = verify(octets, public, previous)
    except NotGenuine as exc:
        print(f"NOT GENUINE: {given.bundle}: {exc}")
        return 1
    red = f", a red run with the planted bug {found['planted']!a}" if found["planted"] else ""
    print(f"genuine: {given.bundle}: bundle {found['number']}, {found['lines']} lines, SHA-256 {found['sha256']}")
    print(f"  drill {found['scenario']!a}: {found['verdict']}{red}; receipts not honoured: {found['receipts']}")
    chain = "follows the previous bundle" if previous is not None else f"previous {found['previous']} (not checked: --previous)"
    print(f"  {chain if found['previous'] != FIRST else 'the first of its chain'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
