"""A registry's content as the lines its own agent reads (readers.py, ready-made form): for a registry kept in files. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from replica.model.handle.json_api import values_json
from replica.model.handle.values import decode_record, encode_values
from replica.model.identifier import DOCUMENT, END, ROUTE, key_text, prefix_text


def line_of(key: bytes, value: bytes) -> bytes:
    """One line, with its end. Reading it gives the same key and the same octets.

    Raises:
        ProtocolFault: not a stored record (`quarantined` ones are not).
    """
    if key[:1] == DOCUMENT:
        kind, _, ident = key[1:].partition(END)
        body = msgspec.json.decode(value[1:])
        return _line({"document": kind.decode(), "id": ident.decode(), "body": body})
    record = decode_record(value)
    values = msgspec.json.decode(values_json(encode_values(record.values)).encode())
    if key[:1] == ROUTE:
        return _line({"prefix": prefix_text(key[1:].partition(END)[0]), "values": values})
    name = key_text(key) if record.spelling is None else record.spelling.decode("utf-8", "surrogateescape")
    return _line({"handle": name, "values": values})


def _line(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode(fields) + b"\n"
