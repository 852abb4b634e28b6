"""What is written for a registry kept in files is read back as the very same records."""

from __future__ import annotations

import pytest

from replica.agent.export import line_of
from replica.agent.mapping import Naming
from replica.agent.readers import Staged, jsonl_line
from replica.agent.records import document_of, record_of, site_from_json
from replica.model.handle.values import HandleValue
from replica.model.identifier import document_key, prefix_key

NAMING = Naming.of(("88.118",), ("88.118.7",))
URL = HandleValue(1, b"URL", "https://example.cn/北京".encode(), ttl=300, timestamp=1_700_000_000)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("88.118.8/XYZ-001", [URL]),
        ("88.118.8/xyz-001", [URL, HandleValue(2, b"EMAIL", b"a@example.cn", permissions=0x0C)]),
        ("88.118.7/xyz-001", [HandleValue(3, b"RAW", bytes(range(256)))]),
        ("88.118.8/北京", [URL]),
    ],
)
def test_records_come_back_octet_by_octet(name: str, values: list[HandleValue]) -> None:
    key, spelling = NAMING.key(name)
    record = record_of(values, spelling)
    [staged] = jsonl_line(line_of(key, record), 1, NAMING)
    assert isinstance(staged, Staged) and (staged.key, staged.payload) == (key, record)


def test_routes_and_documents_too() -> None:
    site = HandleValue(1, b"HS_SITE", site_from_json({"address": "192.0.2.1", "tcp": 2641}), ttl=300)
    service = HandleValue(2, b"HS_SERV", b"0.SERV/88.118.9", ttl=300)
    key = b"p" + prefix_key("88.118.9") + b"\0"
    for found, payload in ((NAMING.route_key("88.118.9"), record_of([site, service])), (key, record_of([service]))):
        [staged] = jsonl_line(line_of(found, payload), 1, NAMING)
        assert isinstance(staged, Staged) and (staged.key, staged.payload) == (found, payload)
    document = document_of({"name": "企业", "n": [1, 2.5, None]})
    [staged] = jsonl_line(line_of(document_key("enterprise", "E-1"), document), 1, NAMING)
    assert isinstance(staged, Staged) and (staged.key, staged.payload) == (document_key("enterprise", "E-1"), document)
