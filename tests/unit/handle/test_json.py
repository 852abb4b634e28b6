"""JSON of the HTTP interface: what the golden vectors do not show."""

from __future__ import annotations

import base64
import datetime
import json

import pytest
from hypothesis import given

from replica.model.handle import json_api, json_read, keys, types, values
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.values import HandleValue, Reference
from tests.unit.handle import strategies as some
from tests.unit.handle.golden import OCTETS, TEXT


def written(*some_values: HandleValue) -> list[dict[str, object]]:
    return json.loads(json_api.values_json(values.encode_values(some_values)))  # type: ignore[no-any-return]


def written_data(kind: bytes, data: bytes) -> object:
    return written(HandleValue(1, kind, data))[0]["data"]


@given(some.value_lists)
def test_what_is_written_is_json_and_reads_back(found: tuple[HandleValue, ...]) -> None:
    text = json_api.resolution_json(b"88.1/a", values.encode_values(found))
    answer = json_read.read_answer(text)
    assert len(json.loads(text)["values"]) == len(found)
    for one, other in zip(answer.values, found, strict=True):
        assert (one.index, one.ttl_type, one.ttl, one.timestamp) == (other.index, other.ttl_type, other.ttl, other.timestamp)
        assert one.permissions == other.permissions & 15
        kind = other.type.upper()
        if not kind.startswith((b"HS_SITE", b"HS_ADMIN", b"HS_VLIST", b"HS_PUBKEY")):
            assert one.data == other.data


@pytest.mark.parametrize(
    ("data", "form", "text"),
    [
        (b"plain", "string", "plain"),
        (b"", "string", ""),
        ('tab\t "quoted" \\ 设备 \r\n'.encode(), "string", 'tab\t "quoted" \\ 设备 \r\n'),
        (b"bell\x07", "base64", base64.b64encode(b"bell\x07").decode()),
        (b"\x7f", "base64", "fw=="),
        (b"\xff\xfe", "base64", "//4="),
        (b"\xed\xa0\x80", "base64", "7aCA"),  # half a surrogate pair is no UTF-8
    ],
)
def test_text_and_octets(data: bytes, form: str, text: str) -> None:
    assert written_data(b"DESC", data) == {"format": form, "value": text}


@pytest.mark.parametrize("kind", [b"HS_SITE", b"hs_site", b"HS_SITE.6", b"HS_SITE.PREFIX", b"HS_NA_DELEGATE"])
def test_every_kind_of_site_is_taken_apart(kind: bytes) -> None:
    assert written_data(kind, OCTETS["hs_site"]) == {"format": "site", "value": json.loads(TEXT["hs_site_json"])}


@pytest.mark.parametrize("kind", [b"HS_SITE", b"HS_ADMIN", b"HS_VLIST", b"HS_PUBKEY", b"HS_NA_DELEGATE"])
def test_what_does_not_decode_falls_back(kind: bytes) -> None:
    assert written_data(kind, b"just text") == {"format": "string", "value": "just text"}
    assert written_data(kind, b"\x00\x01") == {"format": "base64", "value": "AAE="}


def test_a_type_that_only_begins_alike_is_plain() -> None:
    assert written_data(b"HS_SITEX", OCTETS["hs_site"])["format"] == "base64"  # type: ignore[index]


def test_lists_admins_and_keys() -> None:
    assert written_data(b"HS_VLIST", OCTETS["hs_vlist"]) == {
        "format": "vlist",
        "value": [{"handle": "86.1000.1/ADMIN", "index": 300}, {"handle": "0.NA/86.1000", "index": 200}],
    }
    legacy = types.HsAdmin(0x801, Reference(b"0.NA/1", 3), legacy_byte_length=True)
    shown = {"handle": "0.NA/1", "index": 3, "permissions": "100000000001", "legacyByteLength": True}
    assert written_data(b"HS_ADMIN", types.encode_admin(legacy)) == {"format": "admin", "value": shown}
    key = keys.encode_key("RSA", {"n": b"\xfb\xff", "e": b"\x01\x00\x01"})
    assert written_data(b"HS_PUBKEY", key) == {"format": "key", "value": {"kty": "RSA", "n": "-_8", "e": "AQAB"}}
    site = types.site_of(["::1"], [types.Interface(1, 9, 80)], serial=1, public_key=key)
    shown = json.loads(json_api.site_json(site))["servers"][0]
    assert (shown["address"], shown["publicKey"]["format"]) == ("::1", "key")
    assert shown["interfaces"] == [{"query": False, "admin": True, "protocol": 9, "port": 80}]


@pytest.mark.parametrize(
    "site",
    [types.HsSite(7, (), 0xC0, 1, ((b"a", b"b"),), b"filter", 2, (2, 10)), types.site_of(["::1", "127.0.0.1"], [], serial=1)],
)
def test_a_site_reads_back(site: types.HsSite) -> None:
    assert json_read.read_site(json.loads(json_api.site_json(site))) == site


@pytest.mark.parametrize(
    ("kind", "name"),
    [(b"HS_SITE", "hs_site"), (b"HS_ADMIN", "hs_admin"), (b"HS_VLIST", "hs_vlist"), (b"HS_ADMIN", "hs_admin_root")],
)
def test_built_in_data_reads_back(kind: bytes, name: str) -> None:
    text = json_api.values_json(values.encode_values([HandleValue(1, kind, OCTETS[name])]))
    assert json_read.read_values(text.encode()) == (HandleValue(1, kind, OCTETS[name]),)


def test_times() -> None:
    for seconds in (0, 1, 86_399, 86_400, 951_782_400, 1_700_000_000, 2**31, 2**32 - 1):
        text = json_api.time_text(seconds)
        assert text == datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert "timestamp" not in written(HandleValue(1, b"", b"", timestamp=0))[0]


def test_permissions_are_written_only_when_unusual() -> None:
    shown = [written(HandleValue(1, b"", b"", permissions=bits))[0].get("permissions") for bits in (0x0E, 0x0C, 0x0F, 0x00, 0x1E)]
    assert shown == [None, "1100", "1111", "0000", None]


def test_errors_and_referrals() -> None:
    assert json_api.error_json(ResponseCode.HANDLE_NOT_FOUND, b"88.1/a") == b'{"responseCode":100,"handle":"88.1/a"}'
    assert json_api.error_json(2, b"a", 'say "so"') == b'{"responseCode":2,"handle":"a","message":"say \\"so\\""}'
    assert json_api.error_json(200, b"a") == b'{"responseCode":200,"handle":"a","values":[]}'
    assert json_api.error_json(3) == b'{"responseCode":3}'
    assert json_api.referral_json(302, b"0.SERV/1", None) == b'{"responseCode":302,"referralHandle":"0.SERV/1"}'
    assert json_api.referral_json(302, b"0.SERV/1", bytes(4)) == b'{"responseCode":302,"referralHandle":"0.SERV/1"}'
    answer = json_read.read_answer(json_api.referral_json(302, b"0.SERV/1", None))
    assert answer == json_read.JsonAnswer(302, referral_handle=b"0.SERV/1")
    assert json_read.read_answer(json_api.error_json(2, b"a", "why")).message == "why"


def test_octets_that_are_no_values_are_refused() -> None:
    good = values.encode_values([HandleValue(1, b"URL", b"x", references=(Reference(b"a", 1),))])
    for cut in range(len(good)):
        with pytest.raises(ProtocolFault):
            json_api.values_json(good[:cut])


def read_one(**members: object) -> HandleValue:
    base: dict[str, object] = {"index": 1, "type": "URL", "data": "x"}
    return json_read.read_values(json.dumps(base | members).encode())[0]


def test_what_people_write() -> None:
    assert read_one() == HandleValue(1, b"URL", b"x")
    assert read_one(data={"format": "hex", "value": "00ff"}).data == b"\x00\xff"
    assert read_one(data={"format": "BASE64", "value": "-_8"}).data == b"\xfb\xff"
    assert read_one(ttl=0).ttl == 0
    assert read_one(ttl="2027-01-15T08:00:00Z") == HandleValue(1, b"URL", b"x", 1, 1_800_000_000)
    assert read_one(timestamp="2023-11-14T22:13:20.999Z").timestamp == 1_700_000_000
    assert read_one(timestamp="2023-11-15T06:13:20+08:00").timestamp == 1_700_000_000
    assert [read_one(permissions=text).permissions for text in ("*", "1100", "0111", "1", "01", "11110")] == [
        15,
        12,
        7,
        15,
        13,
        14,
    ]
    assert read_one(timestamp="2023-11-14T22:13:20").timestamp == 1_700_000_000
    assert read_one(references=[{"handle": "a/b", "index": 2}]).references == (Reference(b"a/b", 2),)
    many = json_read.read_values(b'{"handle":"a","values":[{"index":1,"type":"URL","data":"x"}]}')
    single = json_read.read_values(b'{"index":1,"type":"URL","data":"x"}')
    assert many == single == (HandleValue(1, b"URL", b"x"),)
    assert (
        types.decode_admin(
            read_one(data={"format": "admin", "value": {"handle": "a", "index": 1, "permissions": "*"}}).data
        ).permissions
        == 0xFFF
    )


BAD = [
    {"index": -1},
    {"index": 2**32},
    {"index": True},
    {"index": "1"},
    {"index": None},
    {"type": 5},
    {"data": None},
    {"data": 5},
    {"data": {"format": "string", "value": 5}},
    {"data": {"format": "wav", "value": "x"}},
    {"data": {"format": "base64", "value": "*"}},
    {"data": {"format": "hex", "value": "0"}},
    {"data": {"format": "vlist", "value": {}}},
    {"data": {"format": "admin", "value": {"handle": "a", "index": 1, "permissions": "2"}}},
    {"data": {"format": "key", "value": {"kty": "OKP"}}},
    {"data": {"format": "site", "value": {"protocolVersion": "2", "servers": []}}},
    {"data": {"format": "site", "value": {"serialNumber": 70_000, "servers": []}}},
    {"data": {"format": "site", "value": {"servers": [{"address": "example.cn", "interfaces": []}]}}},
    {"data": {"format": "site", "value": {"servers": [{"address": "::1", "interfaces": [{"protocol": "QUIC", "port": 1}]}]}}},
    {"ttl": -1},
    {"ttl": "tomorrow"},
    {"ttl": "1969-01-01T00:00:00Z"},
    {"ttl": 1.5},
    {"timestamp": 5},
    {"permissions": "12"},
    {"references": [{"handle": "a"}]},
    {"references": {}},
    {"type": "\ud800"},
]


@pytest.mark.parametrize("members", BAD, ids=str)
def test_bad_values_are_refused(members: dict[str, object]) -> None:
    with pytest.raises(ProtocolFault):
        read_one(**members)


@pytest.mark.parametrize(
    "text", [b"", b"[", b"5", b'"x"', b"[5]", b'{"values":5}', b"\xff", b"[" * 100_000, b'{"responseCode":"1"}']
)
def test_bad_json_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolFault):
        json_read.read_values(text)
    with pytest.raises(ProtocolFault):
        json_read.read_answer(text)


def test_too_many_values_are_refused() -> None:
    with pytest.raises(ProtocolFault, match="at most"):
        json_read.read_values(json.dumps([{"index": i, "type": "a", "data": ""} for i in range(2_049)]).encode())
    with pytest.raises(CodecMisuse):
        json_read.value_of({"index": -1, "type": "a", "data": ""})
