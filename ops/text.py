"""Text from elsewhere on its way to a terminal or a log: nothing in it may move a cursor, start a line or hide."""

from __future__ import annotations

import json
from typing import Any


def printable(text: str, *, keep: str = "") -> str:
    """Control, format and line-separating characters as escapes; letters of every script stay. `keep`: let these through."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else _escape(letter) for letter in text)


def json_line(value: Any) -> str:
    """One line of JSON: scripts readable, everything unprintable as \\uXXXX."""
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def _escape(letter: str) -> str:
    number = ord(letter)
    if number < 0x10000:
        return f"\\u{number:04x}"
    high, low = divmod(number - 0x10000, 0x400)  # JSON writes the rest as a pair
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
