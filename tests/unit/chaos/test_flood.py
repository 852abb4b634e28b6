"""The flood of a drill: what it sends, and how what it gains is told."""

from __future__ import annotations

from chaos.faults.flood import QUESTIONS, SETTLE_S, Gained, questions
from replica.model.handle.bodies import ResolutionRequest, decode_request
from replica.model.handle.message import decode_message


def test_what_a_flood_asks() -> None:
    asked = questions(["88.118.1", "88.118.2"], 300, 7)
    assert len(asked) == QUESTIONS and asked == questions(["88.118.1", "88.118.2"], 300, 7)
    names = list[bytes]()
    for number, octets in enumerate(asked):
        message = decode_message(octets)
        request = decode_request(message)
        assert message.envelope.request_id == number and isinstance(request, ResolutionRequest)
        names.append(request.handle)
    shares = [sum(name.startswith(start) for name in names) / QUESTIONS for start in (b"88.118.", b"0.NA/", b"99.")]
    assert shares[0] > 0.85 and shares[1] > 0.02 and shares[2] > 0.02
    assert sum(b"/M-" in name for name in names) > 0.4 * QUESTIONS
    assert sum(b"/N-" in name for name in names) > 0.3 * QUESTIONS


def test_an_answer_is_held_against_its_question() -> None:
    asked = questions(["88.118.1"], 10, 1)
    answer = asked[5][:12] + bytes(200)
    gained = Gained()
    gained.took(answer, asked, SETTLE_S / 2)
    assert (gained.answers, gained.multiplied) == (1, 0), "a flood must have been noticed before anything is held back"
    gained.took(answer, asked, SETTLE_S)
    gained.took(asked[6], asked, SETTLE_S)
    assert (gained.answers, gained.octets, gained.multiplied) == (3, 2 * len(answer) + len(asked[6]), 1)
    assert gained.factor_max == len(answer) / len(asked[5])
