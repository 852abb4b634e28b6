"""Lines of a registry's files become canonical records; every bad line is named and costs nothing but itself."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.agent.mapping import AnyMapping, DocumentMapping, Naming, RecordMapping, RouteMapping, Template, ValueMapping
from replica.agent.readers import KEPT, WHOLE, Parsed, Reject, Staged, csv_row, difference, jsonl_line, records
from replica.model.batch import OP_DELETE, OP_PUT, Change, columns_of
from replica.model.handle.types import decode_site
from replica.model.handle.values import decode_record
from replica.model.identifier import Identifier, document_key, prefix_key
from replica.native import scan

NAMING = Naming.of(("88.118", "oid:1.2.156"), ("88.118.7",))
ROUTE_KEY = b"p" + prefix_key("88.118.9") + b"\0"


def line(fields: object, mappings: Sequence[AnyMapping] = ()) -> list[Parsed]:
    return list(jsonl_line(json.dumps(fields).encode(), 7, NAMING, mappings))


def rows(text: str, mappings: Sequence[AnyMapping] = ()) -> list[Parsed]:
    reader = csv.DictReader(io.StringIO(text))
    return [item for row in reader for item in csv_row(row, reader.line_num, NAMING, mappings)]


def whole(parsed: list[Parsed]) -> Staged:
    (row,) = parsed
    assert isinstance(row, Staged) and row.ordinal == WHOLE
    faults = scan(columns_of([Change(OP_PUT, row.key, row.payload)]), 1).faults
    assert not faults
    return row


def test_jsonl_record_is_canonical() -> None:
    row = whole(
        line(
            {
                "handle": "88.118.8/xyz",
                "values": [
                    {"index": 9, "type": "DESC", "data": {"format": "base64", "value": "AAH/"}, "permissions": "1100"},
                    {"index": 1, "type": "URL", "data": "http://example.cn/a", "ttl": 300, "timestamp": "2023-11-14T22:13:20Z"},
                ],
            }
        )
    )
    assert row.key == Identifier.parse("88.118.8/XYZ").key()
    record = decode_record(row.payload)
    assert record.spelling == b"88.118.8/xyz"
    url, desc = record.values
    assert (url.index, url.type, url.data, url.ttl, url.timestamp) == (1, b"URL", b"http://example.cn/a", 300, 1_700_000_000)
    assert (desc.data, desc.permissions, desc.timestamp, desc.ttl) == (b"\x00\x01\xff", 0b1100, 0, 86_400)


def test_spelling_is_kept_only_where_the_key_cannot_tell_it() -> None:
    values = [{"index": 1, "type": "URL", "data": "x", "timestamp": 5}]
    assert decode_record(whole(line({"handle": "88.118.8/XYZ", "values": values})).payload).spelling is None
    sensitive = whole(line({"handle": "88.118.7/xyz", "values": values}))
    assert sensitive.key.endswith(b"xyz")
    assert decode_record(sensitive.payload).values[0].timestamp == 5


def test_jsonl_route_and_document() -> None:
    route = whole(
        line(
            {"prefix": "88.118.9", "sites": [{"addresses": ["192.0.2.1", "2001:db8::1"], "udp": 2641, "tcp": 2641, "serial": 4}]}
        )
    )
    assert route.key == ROUTE_KEY
    (value,) = decode_record(route.payload).values
    site = decode_site(value.data)
    assert value.type == b"HS_SITE" and site.serial == 4 and site.primary
    assert [(face.protocol, face.port) for face in site.servers[0].interfaces] == [(1, 2641), (0, 2641)]
    assert site.hosts(site.servers[0]) == ("192.0.2.1", "2001:db8::1")
    served = whole(line({"prefix": "88.118.9", "service": "0.SERV/88.118"}))
    assert [value.type for value in decode_record(served.payload).values] == [b"HS_SERV"]
    document = whole(line({"document": "enterprise", "id": "E-1", "body": {"b": 1, "a": "企业"}}))
    assert document.key == document_key("enterprise", "E-1")
    assert document.payload == b"\x01" + '{"a":"企业","b":1}'.encode()


@pytest.mark.parametrize(
    ("fields", "reason", "kept"),
    [
        ({"handle": "88.119/A", "values": []}, "outside the source's prefixes", False),
        ({"handle": "88.118", "values": [{"index": 1, "type": "URL", "data": "x"}]}, "outside", False),
        ({"handle": "88.118.8/A", "values": []}, "needs a value", True),
        ({"handle": "88.118.8/A", "values": [{"index": 1, "type": "URL", "data": "x"}] * 2}, "twice", True),
        ({"handle": "88.118.8/A", "values": [{"index": -1, "type": "URL", "data": "x"}]}, "4294967295", True),
        ({"handle": "88.118.8/A", "values": [{"index": 1, "type": "", "data": "x"}]}, "type", True),
        ({"handle": "88.118.8/A", "values": [{"index": 1, "type": "URL", "data": "x", "timestamp": -4}]}, "4294967295", True),
        ({"handle": "88.118.8/A", "values": [{"index": 1, "type": "B", "data": "x" * 260_000}]}, "at most", True),
        ({"handle": "88.118.8/A", "values": {"index": 1}}, "list", True),
        ({"handle": "88.118.8/A", "values": [3]}, "", True),
        ({"prefix": "88.118.9", "sites": [{"address": "nowhere", "tcp": 1}]}, "address", True),
        ({"prefix": "88.118.9", "sites": [{"address": "192.0.2.1"}]}, "port", True),
        ({"prefix": "88.118.9", "sites": [{"address": "192.0.2.1", "tcp": 99_999}]}, "port", True),
        ({"prefix": "88", "sites": []}, "outside", False),
        ({"document": "", "id": "1"}, "kind and an id", False),
        ({"something": 1}, "handle and values", False),
        ([1], "one JSON object", False),
    ],
)
def test_a_bad_line_is_named(fields: object, reason: str, kept: bool) -> None:
    first, *rest = line(fields)
    assert isinstance(first, Reject) and first.line == 7 and reason in first.reason
    assert [row.ordinal for row in rest if isinstance(row, Staged)] == ([KEPT] if kept else [])


@given(st.binary(max_size=200))
def test_any_octets_are_a_row_a_reject_or_nothing(octets: bytes) -> None:
    for item in jsonl_line(octets, 1, NAMING):
        assert isinstance(item, Staged | Reject)


FIELDS = (
    *(
        "handle",
        "values",
        "index",
        "type",
        "data",
        "format",
        "value",
        "ttl",
        "timestamp",
        "prefix",
        "sites",
        "servers",
        "address",
    ),
    *("tcp", "document", "id", "body", "permissions", "references", "interfaces", "publicKey", "attributes", "serial", "service"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["values", "sites", "ttl", "timestamp", "body", "id", "service"]), json_values),
    st.integers(0, 2),
)
def test_any_shape_is_a_row_or_a_reject(fields: dict[str, object], kind: int) -> None:
    fields |= [{"handle": "88.118.8/A"}, {"prefix": "88.118.9"}, {"document": "k"}][kind]
    for item in line(json.loads(json.dumps(fields).replace("Infinity", "1e400").replace("NaN", "0"))):
        assert isinstance(item, Staged | Reject)


def test_csv_values_of_one_name_become_one_record() -> None:
    parsed = rows(
        "handle,index,type,data,ttl,timestamp\n"
        "88.118.8/b,2,DESC,two,,\n"
        "88.118.8/A,1,URL,http://a,60,2023-11-14T22:13:20Z\n"
        "88.118.8/b,1,URL,http://b,60,7\n"
        "88.118.8/b,1,URL,again,60,7\n"
    )
    staged = sorted((row for row in parsed if isinstance(row, Staged)), key=lambda row: (row.key, row.ordinal, row.line))
    made = list(records(staged))
    rejects = [item for item in made if isinstance(item, Reject)]
    assert [(reject.line, reject.reason) for reject in rejects] == [(5, "index 1 of the same name as in line 4")]
    decoded = [decode_record(item[1] or b"") for item in made if not isinstance(item, Reject)]
    assert [[(value.index, value.timestamp) for value in record.values] for record in decoded] == [
        [(1, 1_700_000_000)],
        [(1, 7), (2, 0)],
    ]
    assert decoded[1].spelling == b"88.118.8/b"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("88.118.8/A,x,URL,d,60", "index is a whole number"),
        ("88.118.8/A,1,URL,d", "fewer cells"),
        ("88.118.8/A,1,URL,d,60,more", "more or fewer cells"),
        ("88.118.8/A,1,URL,d,soon", "not a time"),
        ("99/A,1,URL,d,60", "outside"),
        ("88.118.8/\udcff,1,URL,d,60", "not UTF-8"),
    ],
)
def test_a_bad_csv_row_is_named(text: str, reason: str) -> None:
    first = rows("handle,index,type,data,ttl\n" + text + "\n")[0]
    assert isinstance(first, Reject) and reason in first.reason and first.line == 2


def test_mapped_columns() -> None:
    mappings: list[AnyMapping] = [
        RecordMapping(
            Template("88.118.8/{code}"),
            (
                ValueMapping(2, "ORG", Template("{name}"), timestamp="updated"),
                ValueMapping(1, "URL", Template("https://example.cn/{code}"), ttl=60),
                ValueMapping(3, "PHONE", Template("{phone}")),
            ),
        ),
        RouteMapping(Template("88.118.{code}"), (Template("{ip}"),), (("tcp", Template("2641")),)),
        DocumentMapping("enterprise", Template("{code}"), ("name", "phone")),
    ]
    record, route, document = rows("code,name,phone,ip,updated\nA1,{code},,192.0.2.9,10\n", mappings)
    assert isinstance(record, Staged) and isinstance(route, Staged) and isinstance(document, Staged)
    values = decode_record(record.payload).values
    assert [(value.index, value.data, value.timestamp) for value in values] == [
        (1, b"https://example.cn/A1", 0),
        (2, b"{code}", 10),
    ]
    assert decode_site(decode_record(route.payload).values[0].data).servers[0].host == "192.0.2.9"
    assert document.payload == b'\x01{"name":"{code}","phone":""}'
    (missing, *_) = rows("name\nx\n", mappings)
    assert isinstance(missing, Reject) and "no column 'code'" in missing.reason
    assert isinstance(line({"code": "A1", "name": 3, "phone": None, "ip": "::1", "updated": 1}, mappings)[0], Staged)


def test_a_name_given_twice_counts_once() -> None:
    given_twice = [Staged(b"h1", WHOLE, 3, b"first"), Staged(b"h1", WHOLE, 9, b"second"), Staged(b"h2", KEPT, 4)]
    assert list(records(given_twice)) == [Reject(9, "the same name as in line 3"), (b"h1", b"first"), (b"h2", None)]


keys = st.binary(min_size=1, max_size=2)


@given(st.dictionaries(keys, st.sampled_from([b"a", b"b", None])), st.dictionaries(keys, st.sampled_from([b"a", b"b"])))
def test_a_difference_makes_held_into_wanted(wanted: dict[bytes, bytes | None], held: dict[bytes, bytes]) -> None:
    changes = list(difference(sorted(wanted.items()), sorted(held.items())))
    assert [change.key for change in changes] == sorted({change.key for change in changes})
    expected = {name: held.get(name) if octets is None else octets for name, octets in wanted.items()}
    result = dict(held)
    for change in changes:
        if change.op == OP_DELETE:
            del result[change.key]
        else:
            assert result.get(change.key) != change.value
            result[change.key] = change.value
    assert result == {name: octets for name, octets in expected.items() if octets is not None}
