"""Structured logs of every process: one line an event, JSON or text, on standard error. Never a secret, never a broken line.

Rooms log to `zaibei.<room>` and put structured values under `extra={"fields": {...}}`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

from ops.text import json_line, printable

ROOT = "zaibei"
VALUE_CHARACTERS_MAX = 1_000
MESSAGE_CHARACTERS_MAX = 4_000
HIDDEN = "(hidden)"
# Fields of these names are never written; a public key, a key id and a plan's token are no secrets.
_SECRET = re.compile(
    r"(secret|passw|passphrase|authorization|bearer|private|credential|beat_key|tls_key|_token$|^token$)", re.IGNORECASE
)
_PLAIN = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime", "taskName", "fields"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The structured part of a record: `fields`, and any other extra value."""
    extra = {name: value for name, value in record.__dict__.items() if name not in _PLAIN}
    given = record.__dict__.get("fields")
    if isinstance(given, Mapping):
        extra.update(given)
    return {str(name): HIDDEN if _SECRET.search(str(name)) else _plain(value) for name, value in extra.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): HIDDEN if _SECRET.search(str(name)) else _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "..."


def _room(record: logging.LogRecord) -> str:
    name = record.name
    return name[len(ROOT) + 1 :] if name.startswith(ROOT + ".") else name


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """{"time", "level", "room", "message", "fields"?, "traceback"?} on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "room": _room(record),
            "message": record.getMessage()[:MESSAGE_CHARACTERS_MAX],
        }
        fields = fields_of(record)
        if fields:
            line["fields"] = fields
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json_line(line)


class TextFormatter(logging.Formatter):
    """`time LEVEL room message name=value ...`; control characters are written as escapes, so that one event stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{printable(name)}={_quoted(value)}" for name, value in fields_of(record).items())
        message = printable(record.getMessage()[:MESSAGE_CHARACTERS_MAX])
        line = f"{_time(record)} {record.levelname:<7} {_room(record)}: {message}" + (f"  {fields}" if fields else "")
        if record.exc_info and record.exc_info[0] is not None:
            line += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return line


def _quoted(value: Any) -> str:
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return f'"{text}"' if " " in text or text == "" else text


def set_up_logging(kind: str, level: str, stream: IO[str] | None = None) -> None:
    """Send all logs of the process to one stream.

    Args:
        kind: "json" or "text"; level: "debug", "info", "warning" or "error".
        stream: standard error where None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries
    logging.getLogger(ROOT).setLevel(level.upper())
    logging.captureWarnings(True)
