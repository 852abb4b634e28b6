"""Log lines: one event, one line, no secret."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.logs import HIDDEN, JsonFormatter, TextFormatter, set_up_logging
from ops.text import json_line, printable


def record(message: str, *args: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("zaibei.feed", logging.WARNING, "f.py", 1, message, args, None)
    made.fields = fields
    made.created = 1_800_000_000.25
    return made


def test_json_line() -> None:
    line = json.loads(JsonFormatter().format(record("batch %s held", "b1", source="node-a", count=3, key=b"\x01")))
    assert line == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "warning",
        "room": "feed",
        "message": "batch b1 held",
        "fields": {"source": "node-a", "count": 3, "key": "01"},
    }


def test_text_line() -> None:
    line = TextFormatter().format(record("灾备\nFAKE line", source="a b", empty=""))
    assert line == '2027-01-15T08:00:00.250Z WARNING feed: 灾备\\u000aFAKE line  source="a b" empty=""'


@pytest.mark.parametrize(
    "name", ["token", "bearer_token", "password", "client_secret", "tls_key_pem", "private_key", "beat_key", "Authorization"]
)
@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_secrets_are_never_written(name: str, formatter: logging.Formatter) -> None:
    for line in (record("x", **{name: "hunter2"}), record("x", inner={name: "hunter2"})):
        written = formatter.format(line)
        assert "hunter2" not in written and HIDDEN in written


def test_what_is_no_secret_is_written() -> None:
    assert "abc" in JsonFormatter().format(record("x", public_key="abc")) and "abc" in JsonFormatter().format(
        record("x", key_id="abc")
    )


@given(
    st.text(), st.dictionaries(st.text(max_size=9), st.text() | st.integers() | st.binary() | st.none() | st.lists(st.floats()))
)
def test_every_event_is_one_line(message: str, fields: dict[str, object]) -> None:
    made = record("%s", message)
    made.fields = fields
    for formatter in (JsonFormatter(), TextFormatter()):
        assert len(formatter.format(made).splitlines()) == 1


def test_a_traceback_stays_with_its_event() -> None:
    stream = io.StringIO()
    before, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        set_up_logging("json", "info", stream)
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("zaibei.store").exception("failed")
        logging.getLogger("zaibei.store").debug("not shown")
        logging.getLogger("some.library").info("not shown")
    finally:
        logging.getLogger().handlers[:] = before
        logging.getLogger().setLevel(level)
        logging.captureWarnings(False)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["failed"]
    assert "ValueError: why" in lines[0]["traceback"]


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_stays_json(value: object) -> None:
    assert json.loads(json_line(value)) == value


def test_letters_of_every_script_stay() -> None:
    assert printable("灾备 é 🙂") == "灾备 é 🙂"
    assert printable("\x1b[2J\u202e\x9b\n", keep="\n") == "\\u001b[2J\\u202e\\u009b\n"
