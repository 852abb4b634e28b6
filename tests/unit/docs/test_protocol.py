"""The worked example of ops/docs/protocol.md, computed by hand with hashlib alone, and by the product."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from replica import native
from replica.agent.records import record_of, value_from_json
from replica.model.batch import OP_PUT, Change, columns_of, cut_batch
from replica.model.identifier import Identifier
from replica.model.position import ORIGIN

PAGE = Path(__file__).resolve().parents[3] / "ops" / "docs" / "protocol.md"


def example() -> dict[str, bytes]:
    block = PAGE.read_text(encoding="utf-8").partition("### A worked example")[2].partition("```text\n")[2].partition("```")[0]
    lines = (re.split(r"\s{2,}", line, maxsplit=1) for line in block.splitlines())
    return {name: bytes.fromhex(octets.replace(" ", "")) for name, octets in lines}


def test_the_example_follows_from_the_text() -> None:
    told = example()
    key, value, columns = told["key"], told["value"], told["columns"]
    fields = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value + b"\x1a\x01\x01"
    assert columns == fields, "protobuf: 1 keys, 2 values, 3 ops"
    assert told["columns_hash"] == sha256(columns).digest()
    chained = b"zaibei-chain-1\0" + bytes(32) + (0).to_bytes(8, "big") + (1).to_bytes(8, "big") + (1).to_bytes(4, "big")
    assert told["chain"] == sha256(chained + told["columns_hash"]).digest()
    assert told["record hash"] == sha256(len(key).to_bytes(4, "big") + key + value).digest()[:16]


def test_the_product_makes_the_same_octets() -> None:
    told = example()
    assert Identifier.parse("88.118.8/a").key() == told["key"]
    assert record_of([value_from_json({"index": 1, "type": "URL", "data": "x", "timestamp": 0})]) == told["value"]
    columns = columns_of([Change(OP_PUT, told["key"], told["value"])])
    batch = cut_batch("node-a", ORIGIN, columns, 1, 0)
    assert (columns, batch.after.chain) == (told["columns"], told["chain"])
    assert native.record_hash(told["key"], told["value"]) == told["record hash"]
