"""One-time tokens: whole or refused. Tickets: one request, few wrong secrets, an end, and one answer to all that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.enrol.tickets import (
    CALLER_WINDOW_S,
    CALLER_WRONG_MAX,
    CALLERS_MAX,
    WRONG_MAX,
    Callers,
    Presented,
    Ticket,
    TicketState,
    present,
    secret_hash,
)
from replica.enrol.token import Token, decode_token, encode_token
from replica.model.errors import Code, ZaibeiError
from replica.model.trust import Role

SECRET = bytes(range(16))
TOKEN = Token(("127.0.0.1:2648", "[::1]:2648"), b"f" * 32, b"t" * 8, SECRET, Role.SOURCE, "node-a", 2_000)
TICKET = Ticket(b"t" * 8, secret_hash(SECRET), Role.SOURCE, "node-a", 2_000, ("88.118.8",))
GOOD = Presented(SECRET, "source", "node-a", b"request 1")


def test_a_token_is_one_word_and_comes_back_whole() -> None:
    text = encode_token(TOKEN)
    assert decode_token(f"  {text}\n") == TOKEN
    assert all(one.isalnum() or one in "-_" for one in text)
    assert SECRET.hex() not in repr(TOKEN)


@given(st.data())
def test_a_damaged_token_is_no_token(data: st.DataObject) -> None:
    text = encode_token(TOKEN)
    at = data.draw(st.integers(0, len(text) - 1))
    for broken in (text[:at], text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]):
        try:
            assert decode_token(broken) == TOKEN  # bits of the last character that say nothing
        except ZaibeiError as exc:
            assert exc.code is Code.MALFORMED


@given(st.text())
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(ZaibeiError):
        decode_token(text)


def test_the_first_good_request_uses_the_ticket_and_may_be_repeated() -> None:
    used, why = present(TICKET, GOOD, 1_000)
    assert not why and used.state(1_000) is TicketState.USED
    again, why = present(used, GOOD, 1_001)
    assert not why and again == used
    other, why = present(used, replace(GOOD, request_hash=b"request 2"), 1_001)
    assert "used already" in why and other == used


@pytest.mark.parametrize("change", [{"secret": b"x" * 16}, {"secret": b""}, {"name": "node-b"}, {"role": "member"}])
def test_wrong_requests_are_counted_and_close_the_ticket(change: dict[str, object]) -> None:
    ticket, wrong = TICKET, replace(GOOD, **change)  # type: ignore[arg-type]
    for _ in range(WRONG_MAX):
        assert ticket.state(1_000) is TicketState.OPEN
        ticket, why = present(ticket, wrong, 1_000)
        assert why and not ticket.request_hash
    assert ticket.state(1_000) is TicketState.CLOSED
    after, why = present(ticket, GOOD, 1_000)
    assert why and after == ticket


def test_a_ticket_ends_and_can_be_closed() -> None:
    assert not present(TICKET, GOOD, 1_999)[1]
    assert present(TICKET, GOOD, 2_000)[1]
    assert present(replace(TICKET, closed=True), GOOD, 1_000)[1]
    used, _ = present(TICKET, GOOD, 1_000)
    assert present(used, GOOD, 2_000)[1]  # its answer is not given for ever either


def test_only_a_hash_of_the_secret_is_kept() -> None:
    assert SECRET not in TICKET.secret_hash and len(TICKET.secret_hash) == 32


def test_a_caller_with_too_many_wrong_requests_waits_and_others_do_not() -> None:
    callers = Callers()
    for _ in range(CALLER_WRONG_MAX):
        callers.check("ipv4:192.0.2.1", 10.0)
        callers.was_wrong("ipv4:192.0.2.1", 10.0)
    with pytest.raises(ZaibeiError) as caught:
        callers.check("ipv4:192.0.2.1", 11.0)
    assert caught.value.code is Code.BUSY and caught.value.trouble.retry
    callers.check("ipv4:192.0.2.2", 11.0)
    callers.check("ipv4:192.0.2.1", 10.0 + CALLER_WINDOW_S)


def test_callers_are_bounded() -> None:
    callers = Callers()
    for number in range(CALLERS_MAX + 50):
        callers.was_wrong(f"ipv4:{number}", 1.0)
    assert len(callers._wrong) == CALLERS_MAX
