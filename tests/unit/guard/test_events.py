"""Security events: what they say, when something begins and is over, and that a flood of them stays few."""

from __future__ import annotations

import itertools
import json
import re

from hosting.guard.clients import client_of
from hosting.guard.events import FACILITY, Kind, SecurityEvent, Severity, State, as_json, as_syslog
from hosting.guard.guard import FLOOD, MISSING_NAME, OVER_UDP, REFUSED
from hosting.guard.guesses import WRONG_PER_MINUTE, WRONG_PROOF, Guesses
from hosting.guard.watch import (
    BAD_CERTIFICATE,
    EVENTS_PER_MINUTE_MAX,
    OPEN_MAX,
    QUIET_MS,
    RULES,
    TALLIES_MAX,
    TWO_SENDERS,
    Watch,
)

MAD, OTHER = client_of("192.0.2.7"), client_of("2001:db8::1")
NOW_MS = 1_700_000_000_000 // 60_000 * 60_000


def watch() -> Watch:
    numbers = itertools.count(1)
    return Watch("member-1", lambda: f"e{next(numbers)}")


def test_an_event_has_the_fields_of_the_agreement() -> None:
    event = SecurityEvent("e2", Kind.BRUTE_FORCE, State.RECOVERED, NOW_MS, "member-1", "192.0.2.0/24", "é", 7, "e1")
    said = json.loads(as_json(event))
    assert (said["event_id"], said["related_id"], said["state"], said["cause"]) == ("e2", "e1", "recovered", 3)
    assert (said["at_ms"], said["kind"], said["severity"], said["count"]) == (NOW_MS, "brute_force", "notice", 7)
    begun = SecurityEvent("e1", Kind.ATTACK, State.ABNORMAL, NOW_MS, "member-1", "", "x", 1)
    assert begun.severity is Severity.ERROR and json.loads(as_json(begun))["related_id"] == ""


def test_a_line_of_syslog_is_one_line_of_rfc_5424() -> None:
    event = SecurityEvent("e1", Kind.SCAN, State.ABNORMAL, NOW_MS + 5, "member 1", 'a"b]c\\', "two\nlines\x00", 3)
    line = as_syslog(event, "host.example")
    head = rf"<{FACILITY * 8 + Severity.NOTICE}>1 2023-11-14T22:13:00.005Z host.example zaibei member1 scan "
    assert re.match(re.escape(head).encode(), line), line
    assert rb'client="a\"b\]c\\"' in line and line.count(b"\n") == 0 and b"\xef\xbb\xbftwo lines" in line


def test_something_begins_once_and_is_over_once() -> None:
    one = watch()
    [begun] = one.noted(OVER_UDP, MAD, 5, NOW_MS)
    assert (begun.kind, begun.state, begun.client, begun.count) == (Kind.ATTACK, State.ABNORMAL, "192.0.2.0/24", 5)
    for second in range(1, 30):
        assert not one.noted(OVER_UDP, MAD, 1, NOW_MS + second * 1_000) and not one.passed(NOW_MS + second * 1_000)
    [other] = one.noted(OVER_UDP, OTHER, 1, NOW_MS + 29_000)
    assert other.client == "2001:db8::/56"
    [over, last] = one.passed(NOW_MS + 29_000 + QUIET_MS)
    assert (over.state, over.related, over.count) == (State.RECOVERED, begun.ident, 34) and last.related == other.ident
    assert one.noted(OVER_UDP, MAD, 1, NOW_MS + 200_000), "it begins anew"


def test_two_senders_of_one_source_are_an_event_at_once() -> None:
    [begun] = watch().noted(TWO_SENDERS, b"", 1, NOW_MS)
    assert (begun.kind, begun.severity) == (Kind.CERTIFICATE, Severity.WARNING) and "two living processes" in begun.what


def test_a_few_wrong_proofs_are_people_and_many_in_a_minute_are_not() -> None:
    one, most = watch(), RULES[WRONG_PROOF].threshold
    for minute in range(5):
        for _ in range(most - 1):
            assert not one.noted(WRONG_PROOF, MAD, 1, NOW_MS + minute * 60_000)
    assert [event.kind for event in one.noted(WRONG_PROOF, MAD, 1, NOW_MS + 4 * 60_000)] == [Kind.BRUTE_FORCE]
    assert not one.noted(MISSING_NAME, MAD, RULES[MISSING_NAME].threshold - 1, NOW_MS)
    assert [event.kind for event in one.noted(MISSING_NAME, MAD, 1, NOW_MS)] == [Kind.SCAN]
    assert [event.kind for event in one.noted(BAD_CERTIFICATE, b"", 1, NOW_MS)] == [Kind.CERTIFICATE]
    assert not one.noted(REFUSED, b"", 1_000, NOW_MS), "who is refused by order is no news"


def test_events_and_what_is_remembered_are_bounded() -> None:
    one, told = watch(), 0
    for number in range(4 * OPEN_MAX):
        told += len(one.noted(OVER_UDP, number.to_bytes(3, "big"), 1, NOW_MS))
    assert told == EVENTS_PER_MINUTE_MAX and len(one._open) <= OPEN_MAX + 1
    [event] = one.noted(FLOOD, b"", 1, NOW_MS + 60_000)
    assert event.suppressed == OPEN_MAX + 1 - EVENTS_PER_MINUTE_MAX, "what was not told is counted"
    for number in range(3 * TALLIES_MAX):
        one.noted(MISSING_NAME, number.to_bytes(7, "big"), 1, NOW_MS + 60_000)
    assert len(one._tallies) <= TALLIES_MAX


def test_who_guesses_is_not_heard_and_shuts_nobody_else_out() -> None:
    notes: list[tuple[str, bytes, int]] = []
    guesses = Guesses(note=lambda *note: notes.append(note))
    for _ in range(WRONG_PER_MINUTE):
        assert guesses.hears("192.0.2.7", 120)
        guesses.wrong("192.0.2.7", 120)
    assert not guesses.hears("192.0.2.250", 179) and guesses.hears("192.0.3.7", 179) and guesses.hears("192.0.2.7", 180)
    assert notes == [(WRONG_PROOF, MAD, 1)] * WRONG_PER_MINUTE and (guesses.wrong_count, guesses.unheard) == (20, 1)
    open_to_all = Guesses(0)
    for _ in range(100):
        open_to_all.wrong("192.0.2.7", 120)
    assert open_to_all.hears("192.0.2.7", 120)
