"""The golden vectors of vectors.txt."""

from __future__ import annotations

from pathlib import Path

_LINES = [line for line in (Path(__file__).parent / "vectors.txt").read_text().splitlines() if line and line[0] != "#"]
_PAIRS = [line.split(" = ", 1) for line in _LINES]
TEXT = {name: text for name, text in _PAIRS if name != "hash"}
HASHES = [text.split(" ") for name, text in _PAIRS if name == "hash"]
OCTETS = {name: bytes.fromhex(text) for name, text in TEXT.items() if not name.endswith("_json")}
REQUESTS = [name for name in OCTETS if "_req" in name or name.startswith("retrieve")]
RESPONSES = ["resolve_resp", "err_not_found_with_digest", "err_server_not_resp", "service_referral", "prefix_referral"]
STAMP = 1_700_000_000
