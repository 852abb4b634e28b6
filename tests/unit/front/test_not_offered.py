"""What of the protocol is not offered is refused with the code that ops/docs/handle.md names, and what is not acted on is stored.

The page itself: every row is judged, and every test it names is there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hosting.front.exchange import Exchange, Registering
from replica.model.handle.bodies import HandleRequest, ResolutionRequest
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, OpFlag, ResponseCode
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from replica.model.handle.values import HandleValue, decode_values
from tests.unit.answer.test_resolve import ask, record
from tests.unit.handle.test_registrar import request

ROOT = Path(__file__).resolve().parents[3]
NAME = b"88.118.8/x"
NOT_OFFERED = (
    OpCode.LIST_NA,
    OpCode.GET_NEXT_TXN_ID,
    OpCode.RETRIEVE_TXN_LOG,
    OpCode.DUMP_HANDLES,
    OpCode.BACKUP_SERVER,
    OpCode.LOGIN,
)


@pytest.mark.parametrize("lives", [True, False], ids=["a source lives here", "none does"])
@pytest.mark.parametrize("op", NOT_OFFERED)
def test_an_operation_that_is_not_offered_is_5(op: OpCode, lives: bool) -> None:
    said = Exchange(lambda: 9, lambda: lives).take(request(op, HandleRequest(b"0.NA/88.118.8")))
    assert isinstance(said, bytes)
    assert decode_message(said).header.response_code == ResponseCode.OPERATION_NOT_SUPPORTED


@pytest.mark.parametrize("op", [OpCode.LOGIN_ID_SYSTEM, OpCode.HOME_NA, OpCode.UNHOME_NA, OpCode.LIST_HOMED_NAS])
def test_where_no_source_lives_logins_and_homes_are_5(op: OpCode) -> None:
    said = Exchange(lambda: 9, lambda: False).take(request(op, HandleRequest(b"0.NA/88.118.9")))
    assert isinstance(said, bytes)
    assert decode_message(said).header.response_code == ResponseCode.OPERATION_NOT_SUPPORTED
    taken = Exchange(lambda: 9, lambda: True).take(request(op, HandleRequest(b"0.NA/88.118.9")))
    assert isinstance(taken, tuple) and isinstance(taken[0], Registering), (
        "where one lives, its registrar says what becomes of it"
    )


@pytest.mark.parametrize("flag", [OpFlag.RECURSIVE, OpFlag.CACHE_CERTIFY, OpFlag.RECURSIVE_AUTH])
def test_a_flag_that_is_not_acted_on_changes_no_question(flag: OpFlag) -> None:
    plain = OpFlag(FLAGS_DEFAULT & ~flag)
    asked = [
        encode_message(Message(Envelope(7, 0), Header(OpCode.RESOLUTION, flags=flags), ResolutionRequest(NAME).encode()))
        for flags in (plain, plain | flag)
    ]
    assert asked[0] != asked[1]
    questions = [one[1] for one in map(Exchange(lambda: 9).take, asked) if isinstance(one, tuple)]
    assert len(questions) == 2 and questions[0] == questions[1] is not None


@pytest.mark.parametrize("kind", [b"HS_ALIAS", b"HS_CERT", b"HS_SIGNATURE", b"HS_NAMESPACE"])
def test_a_type_that_is_not_acted_on_is_answered_as_stored(kind: bytes) -> None:
    stored = HandleValue(1, kind, b"88.118.8/other")
    answer = ask(NAME.decode(), {NAME.decode(): record(stored)})
    assert answer.code == ResponseCode.SUCCESS and [(one.type, one.data) for one in decode_values(answer.octets)] == [
        (kind, stored.data)
    ]


def test_every_row_of_the_page_is_judged_and_every_test_it_names_is_there() -> None:
    page = (ROOT / "ops" / "docs" / "handle.md").read_text(encoding="utf-8").partition("## Golden vectors")[0]
    rows = [line[1:-1].split("|") for line in page.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    rows = [row for row in rows if row[-1].strip() != "tested by"]
    assert len(rows) > 50
    for feature, how, tested in rows:
        missing = [one for one in tested.strip().split(", ") if one and not (ROOT / "tests" / one).exists()]
        assert how.strip() and not missing, f"{feature}: {missing}"
        assert tested.strip() or how.strip().startswith("no"), f"{feature}: tested by nothing, and not said why not"
