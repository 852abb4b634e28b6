"""Personal words of the audit: sealed before the log, equal at every member, verified with and without the key, shown masked."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from replica.model.audit import SEALED_FORMAT, TABLE, AuditHead, Where, check_chain, record, seal_entry, sealed_in
from replica.model.audit_personal import (
    DAY_MS,
    KEPT_DAYS,
    MACHINES,
    REGISTRATION,
    SEALED,
    SHOWN_MASK,
    about,
    joined,
    masked,
    may_go,
    network,
    short,
)
from replica.model.audit_seal import NO_KEYS, AuditKeys, id_of, keys_text, parse_keys
from replica.model.edge_audit_keys import add_audit_key, ensure_audit_keys, load_audit_keys
from replica.model.errors import Code, ZaibeiError
from replica.v1 import control_pb2, entry_pb2, source_pb2
from tests.unit.model.test_audit import GROUP, approval

KEY, OTHER = b"k" * 32, b"o" * 32
KEYS = AuditKeys((KEY,))
PERSONAL = ("li.wei", "wang.fang", "telephone 123", "6b6b6b", "737373")


def acts() -> list[entry_pb2.Entry]:
    """One of each kind that a person's name or words can be in."""
    why, signed = "telephone 123", [approval("li.wei"), approval("wang.fang")]
    ladder = entry_pb2.Ladder(act="t1", reason=why, approved=entry_pb2.Approved(approvals=signed))
    removed = control_pb2.ControlEntry(format=1, act="a1", removed=control_pb2.MemberRemoved(member=3, reason=why))
    bodies: list[dict[str, Any]] = [
        {"decision": entry_pb2.HoldDecision(hold="00ab", release=True, plan="text", approvals=signed)},
        {"authority": entry_pb2.Authority(kind=2, act="t1", reason=why)},
        {"ladder": ladder},
        {"review": entry_pb2.LadderReview(act="t1", verdict=why, approval=signed[0])},
        {"block": entry_pb2.Block(number=3, reason=why, approval=signed[0], identifiers=["88.118.8/x"])},
        {"ledger_decision": entry_pb2.LedgerDecision(accept=True, reason=why, approval=signed[0])},
        {"prefix_move": entry_pb2.PrefixMove(act="m1", prefix="88.118.8", by="li.wei", reason=why)},
        {"control": removed},
        {"grant": source_pb2.Grant(source=GROUP, reason=why, holder="member-1")},
        {"epoch_ask": entry_pb2.EpochAsk(reason=why)},
    ]
    return [entry_pb2.Entry(format=1, admitted_ms=1_000 + at, **body) for at, body in enumerate(bodies)]


def lines_of(entries: list[entry_pb2.Entry]) -> tuple[list[bytes], AuditHead]:
    """As a member makes them of entries in the log, without any key."""
    head, lines = AuditHead(), []
    for at, octets in enumerate(entry.SerializeToString() for entry in entries):
        entry = entry_pb2.Entry.FromString(octets)
        kind = entry.WhichOneof("body") or ""
        where, body = Where(GROUP, at + 1, 1, entry.admitted_ms), getattr(entry, kind)
        made = record(where, head, kind, body, octets, effect=True, sealed=sealed_in(entry))
        assert made is not None
        lines.append(made[0])
        head = made[1]
    return lines, head


def sealed_acts() -> list[entry_pb2.Entry]:
    entries = acts()
    for entry in entries:
        seal_entry(GROUP, entry, KEYS)
    return entries


def test_no_personal_word_is_in_a_record_and_the_key_gives_back_all_of_it() -> None:
    entries = sealed_acts()
    plain, (lines, head) = lines_of(acts())[0], lines_of(entries)
    assert {entry.format for entry in entries} == {SEALED_FORMAT}
    assert check_chain(lines, GROUP, 1, bytes(32), head) == [], "verified without the key"
    for before, line in zip(plain, lines, strict=True):
        was, now = json.loads(before), json.loads(line)
        assert any(word in before.decode() for word in PERSONAL) and was["kind"] in SEALED
        assert not any(word in line.decode() for word in PERSONAL), now["kind"]
        opened = KEYS.open(now)
        assert opened is not None
        again = joined(now, opened)
        assert {name: again[name] for name in ("what", "who", "why", "evidence")} == {
            name: was[name] for name in ("what", "who", "why", "evidence")
        }


def test_members_agree_whoever_has_a_key() -> None:
    """The words are sealed once, by who proposes: what is applied holds them."""
    entries = sealed_acts()
    assert lines_of(entries) == lines_of(entries)
    assert lines_of(sealed_acts())[1] != lines_of(entries)[1], "sealed anew it is another entry, so a retry is told apart"


def test_the_hash_of_an_entry_is_no_help_to_who_guesses_its_words() -> None:
    entry = sealed_acts()[1]
    stated = json.loads(lines_of([entry])[0][0])
    guessed = acts()[1]  # the very words, and what the record shows of the sealed ones
    guessed.format, guessed.sealed.key = SEALED_FORMAT, stated["sealed"]["key"]
    guessed.sealed.words = base64.b64decode(stated["sealed"]["words"])
    assert sha256(guessed.SerializeToString()).hexdigest() != stated["entry"]
    guessed.sealed.salt = entry.sealed.salt
    assert sha256(guessed.SerializeToString()).hexdigest() == stated["entry"], "the salt alone was lacking"


def test_without_the_key_only_the_words_are_lost() -> None:
    line = json.loads(lines_of(sealed_acts())[0][0])
    for keys in (NO_KEYS, AuditKeys((OTHER,))):
        assert keys.open(line) is None
        shown = masked(line, None)
        assert (shown["who"], shown["why"], shown["what"]) == ([SHOWN_MASK], SHOWN_MASK, line["what"])
    assert AuditKeys((OTHER, KEY)).open(line) == KEYS.open(line), "an earlier key of the file opens"


def test_words_of_another_record_or_altered_ones_are_found() -> None:
    one, other = (json.loads(line) for line in lines_of(sealed_acts())[0][1:3])
    octets = bytearray(base64.b64decode(one["sealed"]["words"]))
    octets[20] ^= 1
    bad = [
        {**one, "sealed": other["sealed"]},
        {**one, "group": "node-b"},
        {**one, "sealed": {**one["sealed"], "words": base64.b64encode(octets).decode()}},
        {**one, "sealed": {**one["sealed"], "words": "!"}},
        {**one, "sealed": {}},
    ]
    for fields in bad:
        with pytest.raises(ZaibeiError) as raised:
            KEYS.open(fields)
        assert raised.value.code is Code.VERIFICATION_FAILED


def test_a_machines_entry_and_one_without_a_key_stay_as_they_were() -> None:
    mark = entry_pb2.Entry(format=1, admitted_ms=1, mark=entry_pb2.FeedMark(state=4, reason="too much"))
    act = acts()[0]
    seal_entry(GROUP, mark, KEYS)
    seal_entry(GROUP, act, NO_KEYS)
    assert (mark.format, act.format) == (1, 1) and not mark.HasField("sealed") and not act.HasField("sealed")
    assert KEYS.open(json.loads(lines_of([act])[0][0])) == {}, "a plain record goes on to be read"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("300:88.118.9/LI", "300:88.118.9/L…"),
        ("li.wei", "l…"),
        ("sha256:abcdef01", "sha256:abcd…"),
        ("others", "others"),
        ("", "…"),
    ],
)
def test_names_are_shown_by_their_beginning(name: str, shown: str) -> None:
    assert short(name) == shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2ff:3::4", "2001:db8:1:200::/56"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("fe80::1%eth0", "fe80::/56"),
        ("host.example", SHOWN_MASK),
    ],
)
def test_an_address_is_shown_as_its_network(address: str, shown: str) -> None:
    assert network(address) == shown


def test_a_plain_record_is_masked_too_and_is_found_by_the_whole_word_alone() -> None:
    for line in lines_of(acts())[0]:
        fields = json.loads(line)
        shown = json.dumps(masked(fields, {}), ensure_ascii=False)
        assert not any(word in shown for word in PERSONAL), fields["kind"]
    decision = next(one for one in map(json.loads, lines_of(acts())[0]) if one["kind"] == "decision")
    assert about(decision, "li.wei") and not about(decision, "li.we") and not about(decision, "")


def test_nothing_younger_than_six_months_may_go() -> None:
    now_ms = 1_800_000_000_000

    def line(at_ms: int) -> bytes:
        return json.dumps({"at_ms": at_ms}).encode()

    edge = now_ms - KEPT_DAYS * DAY_MS
    assert KEPT_DAYS >= 183 and may_go(line(edge - 1), now_ms) and not may_go(line(edge), now_ms)
    assert not may_go(line(edge - 1), now_ms, 400) and not may_go(line(edge), now_ms, 1), "no setting goes below it"
    assert not may_go(line(0), now_ms), "one that states no time is kept"


def test_every_kind_is_known_to_be_a_persons_or_a_machines() -> None:
    """A new kind of entry must be put on one side, or its words would stand plain for nobody having thought of it."""
    assert set(TABLE) | {REGISTRATION, "dropped"} == SEALED | MACHINES and not SEALED & MACHINES


def test_what_machines_say_is_read_by_whoever_is_called_at_night() -> None:
    mark = entry_pb2.Entry(format=1, admitted_ms=1, mark=entry_pb2.FeedMark(state=4, reason="too much"))
    fields = json.loads(lines_of([mark])[0][0])
    assert masked(fields, {}) == fields and fields["why"] == "too much"
    unknown = {**fields, "kind": "of a later version"}
    assert "too much" not in str(masked(unknown, {})), "whatever is not known to be a machine's is masked"


def test_the_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "audit.key"
    assert not load_audit_keys(path)
    first = ensure_audit_keys(path)
    assert path.stat().st_mode & 0o777 == 0o600 and ensure_audit_keys(path).ids == first.ids and len(first.ids) == 1
    second = add_audit_key(path)
    assert second.ids[1:] == first.ids and second.ids[0] != first.ids[0] and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(ZaibeiError) as raised:
        load_audit_keys(path)
    assert raised.value.code is Code.NOT_AUTHORISED


@pytest.mark.parametrize("text", ["x", "zaibei-audit-key-1 00", "zaibei-audit-key-2 " + "00" * 32, keys_text((KEY,)) + "?"])
def test_what_is_no_file_of_keys_is_refused_and_no_key_is_told(text: str) -> None:
    with pytest.raises(ZaibeiError) as raised:
        parse_keys(text, "audit.key")
    assert raised.value.code is Code.DAMAGED and KEY.hex() not in str(raised.value)
    assert parse_keys(keys_text((KEY, OTHER)), "").ids == (id_of(KEY), id_of(OTHER))
