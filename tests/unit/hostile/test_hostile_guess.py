"""Whoever guesses: is he told which keys there are? Whatever fails, one code and one text, and every failure is counted."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hosting.guard.guesses import WRONG_PER_MINUTE
from hosting.handle import edge_judge
from hosting.handle.certified import Certified
from hosting.handle.edge_judge import NOT_PROVED
from replica.model.handle import admin_bodies, proofs
from replica.model.handle.admin_bodies import HS_PUBKEY, HS_SECKEY, SetupMode
from replica.model.handle.bodies import HandleRequest
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.message import Envelope, Header, Message, encode_message
from replica.model.handle.proofs import MacCode
from replica.model.handle.values import HandleValue, Reference
from tests.unit.handle.test_sessions import public_of, setup
from tests.unit.hostile.hostile_world import HIDDEN, KEYS, SEEN, B, Place, admin, basic

GUESSER = rsa.generate_private_key(65_537, 1_024)
THEIRS = rsa.generate_private_key(65_537, 1_024)
AT = f"{B}/KEYS".encode()
THERE = {  # what a key that is there can be; index 8 and NOBODY are not there
    KEYS[B]: HandleValue(300, b"HS_SECKEY", b"x", permissions=HIDDEN),
    Reference(AT, 1): HandleValue(1, b"HS_SECKEY", b"", permissions=HIDDEN),
    Reference(AT, 2): HandleValue(2, b"HS_SECKEY", b"x" * 1_025, permissions=HIDDEN),
    Reference(AT, 3): HandleValue(3, b"HS_PUBKEY", public_of(THEIRS), permissions=HIDDEN),
    Reference(AT, 4): HandleValue(4, b"HS_PUBKEY", b"no key at all", permissions=HIDDEN),
    Reference(AT, 5): HandleValue(5, b"HS_PUBKEY", public_of(THEIRS)),
}
GUESSED = [*THERE, Reference(AT, 8), Reference(KEYS[B].handle, 0), Reference(f"{B}/NOBODY".encode(), 300)]


def place_of_keys() -> Place:
    place = Place()
    place.put(B, AT.decode(), *(value for key, value in THERE.items() if key.handle == AT), admin(KEYS[B]))
    return place


async def test_whoever_guesses_is_not_told_which_keys_there_are() -> None:
    place, ask = Place(), (OpCode.DELETE_HANDLE, HandleRequest(f"{B}/DATA".encode()))
    there = await place.ask(*ask, KEYS[B], b"guessed")
    nowhere = await place.ask(*ask, Reference(f"{B}/NOBODY".encode(), 300), b"guessed")
    assert (there.header.response_code, there.body) == (nowhere.header.response_code, nowhere.body)


@pytest.mark.parametrize("kind", [HS_SECKEY, HS_PUBKEY])
async def test_a_wrong_proof_has_one_answer_whatever_stands_there(kind: bytes) -> None:
    judge, told = place_of_keys().registrar.judge, set()
    for key in GUESSED:
        secret = proofs.prove_secret(b"guess", b"n", b"d", MacCode.HMAC_SHA256)
        proof = secret if kind == HS_SECKEY else proofs.prove_public(GUESSER, b"n", b"d")
        told.add(await judge.proved(kind, key, b"n", b"d", proof, SEEN))
    assert told == {NOT_PROVED} and judge.guesses.wrong_count == len(GUESSED)


async def test_a_guessed_secret_and_a_certificate_have_one_answer_whatever_stands_there() -> None:
    judge, told = place_of_keys().registrar.judge, set()
    for key in GUESSED:
        told.add(await judge.secret(key, b"", SEEN))
        told.add(await judge.certified(Certified(key, GUESSER.public_key()), "198.51.100.1"))
    assert told == {NOT_PROVED} and judge.guesses.wrong_count == 2 * len(GUESSED)
    assert await judge.certified(Certified(Reference(AT, 3), THEIRS.public_key()), SEEN) is None, "its owner is let in"


async def test_nobodys_key_lets_nobody_in() -> None:
    """Where there is no key the proof is tested with one of ours: whoever knows that one is not let in by it."""
    place = place_of_keys()
    proof = proofs.prove_secret(bytes(32), b"n", b"d", MacCode.HMAC_SHA256)
    for key in (Reference(AT, 8), Reference(AT, 1), Reference(AT, 2)):
        assert await place.registrar.judge.proved(HS_SECKEY, key, b"n", b"d", proof, SEEN) is NOT_PROVED
        assert await place.registrar.judge.secret(key, bytes(32), SEEN) is NOT_PROVED


async def test_json_says_the_same_of_a_key_that_is_there_and_one_that_is_not() -> None:
    place = place_of_keys()
    told = [await place.json("DELETE", f"/api/handles/{B}/DATA", basic(key, b"guess")) for key in (KEYS[B], Reference(AT, 8))]
    assert told[0] == told[1] and told[0][0] == told[0][1]["responseCode"] == 403


async def test_a_session_is_opened_by_a_key_that_everybody_may_read_alone() -> None:
    place = place_of_keys()
    told = []
    for index in (3, 4, 1, 8):
        said = await place.send(setup(SetupMode.KEY_OF_HANDLE, at=Reference(AT, index)))
        told.append((said.header.response_code, said.body[-60:]))
    assert len(set(told)) == 1 and told[0][0] == ResponseCode.SESSION_FAILED, "hidden or not there: the same words"
    assert place.registrar.judge.guesses.wrong_count == len(told)
    assert (await place.send(setup(SetupMode.KEY_OF_HANDLE, at=Reference(AT, 5)))).header.response_code == 1


async def test_who_guesses_at_one_door_is_heard_at_none() -> None:
    place = place_of_keys()
    for number in range(WRONG_PER_MINUTE):
        key = Reference(AT, 1_000 + number)
        if number % 2:
            assert await place.registrar.judge.certified(Certified(key, GUESSER.public_key()), SEEN) is NOT_PROVED
        else:
            await place.send(setup(SetupMode.KEY_OF_HANDLE, at=key))
    assert (await place.send(setup(SetupMode.KEY_OF_HANDLE, at=Reference(AT, 5)))).header.response_code == 3
    shown = await place.registrar.judge.certified(Certified(Reference(AT, 3), THEIRS.public_key()), SEEN)
    assert shown is not None and shown.code is ResponseCode.SERVER_TOO_BUSY
    assert (await place.registrar.judge.certified(Certified(Reference(AT, 3), THEIRS.public_key()), "198.51.100.1")) is None


async def test_a_verification_does_not_tell_which_keys_there_are() -> None:
    place = Place()
    told = set()
    for key in (KEYS[B], Reference(f"{B}/NOBODY".encode(), 300)):
        wanted = admin_bodies.VerifyRequest(key, b"n" * 16, b"d" * 20, bytes((MacCode.HMAC_SHA256,)) + b"p" * 32)
        octets = encode_message(Message(Envelope(7, 0), Header(OpCode.VERIFY_CHALLENGE), wanted.encode()))
        said = await place.send(octets)
        told.add((said.header.response_code, said.body[-1:]))
    assert told == {(1, b"\0")}


@pytest.mark.parametrize("kind", [HS_SECKEY, HS_PUBKEY])
async def test_a_wrong_proof_is_as_much_work_whatever_stands_there(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time tells little more than the words: one look, one judging with a key of somebody's or nobody's."""
    registrar = place_of_keys().registrar
    judge, looks, done = registrar.judge, registrar.judge._looks, []
    values, good = looks.values, edge_judge._good

    async def looked(handle: bytes) -> Any:
        done.append("look")
        return await values(handle)

    def judged(*given: Any) -> bool:
        done.append("judge" if given[1] else "nothing")
        return good(*given)

    monkeypatch.setattr(looks, "values", looked)
    monkeypatch.setattr(edge_judge, "_good", judged)
    for key in GUESSED:
        done.clear()
        proof = proofs.prove_secret(b"g", b"n", b"d", MacCode.HMAC_SHA256)
        await judge.proved(kind, key, b"n", b"d", proof if kind == HS_SECKEY else proofs.prove_public(GUESSER, b"n", b"d"), SEEN)
        assert done == ["look", "judge"], key
