"""Canonical octets of what the agent publishes: Handle values sorted by index, sites, compact sorted JSON documents.

Timestamps come from the input (a column or field) and are 0 where it has none: the same input always gives the same octets, so
that digests of source and copy can be compared.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec

from replica.model.batch import RECORD_OCTETS_MAX, RECORD_VALUES_MAX
from replica.model.errors import Code, ZaibeiError
from replica.model.handle import json_read, types
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.values import HandleValue, encode_record, encode_value, record_head

TYPE_OCTETS_MAX = 255
PORT_MAX = 65_535
SITE_PROTOCOLS = ("tcp", "udp", "http", "https")  # TCP first: the national clients take the first TCP interface


def bad(why: str) -> ZaibeiError:
    """The input's fault."""
    return ZaibeiError(Code.MALFORMED, why)


@contextmanager
def judged() -> Iterator[None]:
    """The codec's refusals as the input's faults."""
    try:
        yield
    except ProtocolFault as exc:
        raise bad(exc.detail) from exc
    except (CodecMisuse, UnicodeEncodeError) as exc:
        raise bad(str(exc)) from exc


def encoded(value: HandleValue) -> bytes:
    """Octets of one value. Raises ZaibeiError(MALFORMED)."""
    if not 1 <= len(value.type) <= TYPE_OCTETS_MAX:
        raise bad(f"a type has 1 to {TYPE_OCTETS_MAX} octets")
    with judged():
        return encode_value(value)


def assemble(values: Sequence[bytes], spelling: bytes = b"") -> bytes:
    """A record of encoded values, ascending by index, with the name as written where the key cannot tell it.

    Raises:
        ZaibeiError(MALFORMED): no value, or over a limit of a record.
    """
    if not 1 <= len(values) <= RECORD_VALUES_MAX:
        raise bad(f"a record has 1 to {RECORD_VALUES_MAX} values, not {len(values)}")
    with judged():
        record = b"".join((record_head(spelling or None), len(values).to_bytes(4, "big"), *values))
    if len(record) > RECORD_OCTETS_MAX:
        raise bad(f"a record of {len(record)} octets is over {RECORD_OCTETS_MAX}")
    return record


def record_of(values: Sequence[HandleValue], spelling: bytes = b"") -> bytes:
    """Canonical octets of a record. Raises ZaibeiError(MALFORMED): no value, an index twice, a limit."""
    if not values:
        raise bad("a record needs a value")
    if not all(1 <= len(value.type) <= TYPE_OCTETS_MAX for value in values):
        raise bad(f"a type has 1 to {TYPE_OCTETS_MAX} octets")
    with judged():
        return encode_record(values, spelling or None)


def document_of(body: object) -> bytes:
    """Canonical octets of a business document: keys sorted, no spaces. Raises ZaibeiError(MALFORMED)."""
    octets = b"\x01" + msgspec.json.encode(body, order="sorted")
    if len(octets) > RECORD_OCTETS_MAX:
        raise bad(f"a document of {len(octets)} octets is over {RECORD_OCTETS_MAX}")
    return octets


def value_from_json(item: object) -> HandleValue:
    """A value as the JSON API writes it; its timestamp may also be a number. Raises ZaibeiError(MALFORMED)."""
    stamp = 0
    if isinstance(item, Mapping) and isinstance(item.get("timestamp"), int):
        stamp = item["timestamp"]
        item = {name: field for name, field in item.items() if name != "timestamp"}
    with judged():
        value = json_read.value_of(item)
        return replace(value, timestamp=stamp) if stamp else value


def data_octets(text: str, form: str) -> bytes:
    """Data of a value out of a table's cell: format string, base64 or hex. Raises ZaibeiError(MALFORMED)."""
    if form == "string":
        with judged():
            return text.encode()
    if form not in ("base64", "hex"):
        raise bad(f"data format {form[:20]!r}: a cell holds string, base64 or hex")
    with judged():
        return json_read.value_of({"index": 1, "type": "X", "data": {"format": form, "value": text}}).data


def site_data(addresses: Sequence[str], ports: Mapping[str, int], *, serial: int, primary: bool = True, desc: str = "") -> bytes:
    """HS_SITE octets of one server; further addresses become `alt_addr`. Raises ZaibeiError(MALFORMED)."""
    if not addresses or not ports:
        raise bad("a site needs an address and a port")
    faces = []
    for protocol in SITE_PROTOCOLS:
        if protocol in ports:
            if not 0 < ports[protocol] <= PORT_MAX:
                raise bad(f"a port is 1 to {PORT_MAX}, not {ports[protocol]}")
            faces.append(types.Interface(int(types.InterfaceUse.BOTH), int(types.Protocol[protocol.upper()]), ports[protocol]))
    with judged():
        return types.encode_site(types.site_of(addresses, faces, serial=serial, primary=primary, description=desc))


def site_from_json(data: object) -> bytes:
    """HS_SITE octets from the JSON API's site, or the short form {address(es), tcp, udp, http(s), serial, primary, desc}.

    Raises:
        ZaibeiError(MALFORMED).
    """
    if not isinstance(data, Mapping):
        raise bad("a site is an object")
    if "servers" in data:
        with judged():
            return types.encode_site(json_read.read_site(data))
    addresses = data.get("addresses") or [data.get("address", "")]
    ports = {name: _port(data[name]) for name in SITE_PROTOCOLS if data.get(name)}
    serial = data.get("serial", 1)
    if not isinstance(serial, int) or not isinstance(addresses, list):
        raise bad("a site has a serial number and a list of addresses")
    return site_data(
        [str(address) for address in addresses],
        ports,
        serial=serial,
        primary=bool(data.get("primary", True)),
        desc=str(data.get("desc", "")),
    )


def _port(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise bad("a port is a number")
    return number


def seconds(stamp: object) -> int:
    """A time as seconds since 1970: a number, or ISO 8601 (without a zone: UTC); empty: 0. Raises ZaibeiError(MALFORMED)."""
    if isinstance(stamp, int) and not isinstance(stamp, bool):
        return stamp
    text = str(stamp).strip()
    if not text or (text.isascii() and text.isdigit()):
        return int(text or 0)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise bad(f"not a time: {text[:40]!r}") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp())


def permissions_of(text: str) -> int:
    """Four characters 0 or 1: admin read, admin write, public read, public write; empty: the default 1110."""
    if not text:
        return 0b1110
    if len(text) != 4 or set(text) - {"0", "1"}:
        raise bad("permissions are four digits 0 or 1: admin read, admin write, public read, public write")
    return int(text, 2)
