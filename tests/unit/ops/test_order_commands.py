"""`zaibei order`: made at the top-level node, checked by anybody, handed in at a member; and files that are no such order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from ops.cli.main import cli
from ops.operators import edge_keys
from ops.operators.orders import KINDS, Found, duration_ms, look, moment_ms, octets_of, order_of, read, to_text
from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import Function, Ladder, OrderKind
from replica.takeover.orders import judge, parse, sign
from replica.v1 import entry_pb2

REASON = "its hall burnt down"
Call = Callable[..., Result]


class Member:
    """Keeps what is handed in; refuses when told to."""

    def __init__(self) -> None:
        self.orders: list[bytes] = []
        self.refusal: ZaibeiError | None = None

    def registration_order(self, order: str) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.orders.append(bytes.fromhex(order))
        return {"source": "node-a", "kind": "takeover", "number": 4, "function": "registration"}


@pytest.fixture
def member() -> Member:
    return Member()


@pytest.fixture
def call(member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZAIBEI_CONFIG", raising=False)

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, ["order", *words], obj={"admin": lambda: member}, prog_name="zaibei")

    return run


@pytest.fixture
def public(call: Call) -> str:
    return str(json.loads(call("key", "beijing", "--json").stdout)["public_key"])


def make(call: Call, *more: str, kind: str = "takeover", code: int = 0) -> Any:
    said = call("make", kind, "registration", "node-a", "--key", "beijing.key", "--reason", REASON, *more, "--json")
    assert said.exit_code == code, said.output
    return json.loads(said.stdout)


def test_an_order_is_made_shown_and_believed_by_a_member(call: Call, public: str, member: Member, tmp_path: Path) -> None:
    assert (tmp_path / "beijing.key").stat().st_mode & 0o777 == 0o600
    made = make(call, "--for", "24h", "--number", "17")
    assert made["file"] == "node-a-takeover-17.order" and made["public_key"] == public
    assert made["until_ms"] - made["issued_ms"] == 86_400_000
    shown = json.loads(call("show", made["file"], "--issuer", f"beijing={public}", "--json").stdout)
    assert (shown["verdict"], shown["issuer"], shown["reason"], shown["number"]) == ("good", "beijing", REASON, 17)
    assert "Take over the registration of node-a" in call("show", made["file"], "--issuer", public).output
    said = call("send", made["file"])
    assert said.exit_code == 0 and "order 4 taken in" in said.output
    [octets] = member.orders
    issuers = {"beijing": bytes.fromhex(public)}
    assert judge(parse(octets), "node-a", issuers, Ladder(), time.time_ns() // 1_000_000) is OrderKind.TAKEOVER


def test_numbers_rise_by_themselves(call: Call, public: str) -> None:
    numbers = [make(call, "--for", "1h")["number"] for _ in range(2)]
    assert numbers[0] < numbers[1]


def test_the_configuration_names_the_issuers(call: Call, public: str, tmp_path: Path) -> None:
    made = make(call, "--for", "1h")
    (tmp_path / "member.toml").write_text(f'[[top_level]]\nname = "beijing"\npublic_key = "{public}"\n')
    assert call("show", made["file"], "--config", "member.toml").exit_code == 0
    unknown = call("show", made["file"])
    assert unknown.exit_code == 11 and "UNKNOWN" in unknown.output and "keys known here are: none" in unknown.output


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_says_what_it_orders(call: Call, public: str, kind: str) -> None:
    more = ["--probes", "9", "--failing", "8", "--lasting", "5m"] if kind == "probe-report" else []
    made = make(call, "--for", "5m", *more, kind=kind)
    words = {"takeover": "Take over", "end": "End the takeover", "standing": "by yourselves", "probe-report": "8 of 9 probes"}
    assert words[kind] in made["words"] and "node-a" in made["words"]
    assert (made["findings"] is not None) is (kind == "probe-report")
    assert call("show", made["file"], "--issuer", f"beijing={public}").exit_code == 0


@pytest.mark.parametrize(
    ("more", "kind", "code", "why"),
    [
        ((), "takeover", 2, "until when"),
        (("--for", "1h", "--until", "2999-01-01T00:00Z"), "takeover", 2, "until when"),
        (("--for", "8d"), "takeover", 2, "at most 7 days"),
        (("--for", "11m", "--probes", "9", "--failing", "9", "--lasting", "5m"), "probe-report", 2, "at most 10 min"),
        (("--until", "2020-01-01T00:00Z"), "takeover", 2, "void before it is signed"),
        (("--until", "2999-01-01"), "takeover", 2, "no moment with a zone"),
        (("--for", "soon"), "takeover", 2, "no duration"),
        (("--for", "5m"), "probe-report", 2, "--probes"),
        (("--for", "5m", "--probes", "9"), "probe-report", 2, "all three"),
        (("--for", "5m", "--probes", "9", "--failing", "10", "--lasting", "5m"), "probe-report", 2, "10 of 9 probes"),
        (("--for", "1h", "--probes", "9", "--failing", "9", "--lasting", "5m"), "takeover", 2, "only a probe report"),
        (("--for", "1h", "--key", "nobody.key"), "takeover", 6, "zaibei order key NAME"),
    ],
)
def test_orders_that_no_member_would_take_are_not_made(
    call: Call, public: str, tmp_path: Path, more: tuple[str, ...], kind: str, code: int, why: str
) -> None:
    refused = make(call, *more, kind=kind, code=code)
    assert why in refused["error"]["message"]
    assert not list(tmp_path.glob("*.order"))


def test_a_file_or_key_that_is_there_stays(call: Call, public: str, tmp_path: Path) -> None:
    make(call, "--for", "1h", "--out", "one.order")
    before = (tmp_path / "one.order").read_text()
    assert make(call, "--for", "2h", "--out", "one.order", code=7)["error"]["code"] == "conflict"
    assert (tmp_path / "one.order").read_text() == before
    assert call("key", "beijing").exit_code == 7
    assert call("key", "Not A Name").exit_code == 2


def test_what_was_changed_on_its_way_is_forged_or_no_order(call: Call, public: str, tmp_path: Path, member: Member) -> None:
    made = make(call, "--for", "1h")
    text = (tmp_path / made["file"]).read_text()
    order = read(text.encode())
    order.reason = "another reason"
    for body, code, why in (
        (to_text(order), 9, "changed on its way, or forged"),
        (text.replace("-----END", "-----ND"), 2, "its last line is missing"),
        (text.replace("\n", "\n!", 1), 2, "changed or cut"),
        ("hello", 2, "no order"),
    ):
        (tmp_path / "x.order").write_text(body)
        said = call("show", "x.order", "--issuer", f"beijing={public}")
        assert said.exit_code == code and why in said.output, body
        if code == 2:
            assert call("send", "x.order").exit_code == 2
    assert member.orders == []
    quoted = "> " + text.replace("\n", "\r\n") + "\r\nsent from a telephone"
    (tmp_path / "mail.txt").write_text(quoted)
    assert call("show", "mail.txt", "--issuer", f"beijing={public}").exit_code == 0, "mail adds text around it"


def test_a_members_refusal_is_told(call: Call, public: str, member: Member) -> None:
    made = make(call, "--for", "1h")
    member.refusal = ZaibeiError(Code.CONFLICT, "order 17 of beijing is a replay: number 17 was seen")
    said = call("send", made["file"])
    assert said.exit_code == 7 and "is a replay" in said.output


def test_a_locked_key_asks_for_its_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge_keys.create(tmp_path / "locked.key", b"open sesame")
    words = [
        "order",
        "make",
        "end",
        "registration",
        "node-a",
        "--key",
        str(tmp_path / "locked.key"),
        "--for",
        "1h",
        "--reason",
        "x",
    ]
    words += ["--out", str(tmp_path / "end.order")]
    assert CliRunner().invoke(cli, words, input="wrong\n").exit_code == 3
    assert CliRunner().invoke(cli, words, input="open sesame\n").exit_code == 0


def signed_at(tmp_path: Path, issued_ms: int, until_ms: int) -> tuple[entry_pb2.Order, dict[str, bytes]]:
    signer = edge_keys.create(tmp_path / "k.key")
    made = order_of(OrderKind.TAKEOVER, Function.REGISTRATION, "node-a", 1, issued_ms=issued_ms, until_ms=until_ms, reason=REASON)
    return sign(made, signer), {"beijing": signer.public}


def test_an_order_is_good_between_its_two_moments_alone(tmp_path: Path) -> None:
    order, issuers = signed_at(tmp_path, 1_000_000, 2_000_000)
    assert look(order, issuers, 1_500_000).found is Found.GOOD
    assert look(order, issuers, 2_000_000).found is Found.GOOD
    assert look(order, issuers, 2_000_001).found is Found.VOID
    assert look(order, issuers, 0).found is Found.VOID, "issued in the future of our clock by more than it may be off"
    assert look(order, {}, 1_500_000).found is Found.UNKNOWN


def test_a_reason_and_a_source_are_wanted() -> None:
    for source, reason in (("", REASON), ("node-a", "  "), ("node-a", "x" * 501)):
        with pytest.raises(ZaibeiError) as refused:
            order_of(OrderKind.END, Function.RESOLUTION, source, 1, issued_ms=1, until_ms=2, reason=reason)
        assert refused.value.code is Code.MALFORMED


def test_durations_and_moments() -> None:
    assert [duration_ms(text) for text in ("90s", "30m", "24h", "7d")] == [90_000, 1_800_000, 86_400_000, 604_800_000]
    assert moment_ms("1970-01-02T08:00+08:00") == 86_400_000
    for text in ("", "0s", "1w", "-1h", "1.5h", "9" * 20 + "d"):
        with pytest.raises(ZaibeiError):
            duration_ms(text)


@given(st.binary(max_size=200))
def test_any_octets_end_in_an_order_or_a_named_fault(octets: bytes) -> None:
    for file in (octets, b"-----BEGIN ZAIBEI ORDER-----" + octets + b"-----END ZAIBEI ORDER-----"):
        try:
            read(file)
        except ZaibeiError as exc:
            assert exc.code is Code.MALFORMED


def test_octets_come_back_from_text(tmp_path: Path) -> None:
    order, _ = signed_at(tmp_path, 1_000_000, 2_000_000)
    assert octets_of(to_text(order).encode()) == order.SerializeToString()


@pytest.mark.parametrize("verb", ["", "key", "make", "show", "send"])
def test_help_teaches_by_example(call: Call, verb: str) -> None:
    text = call(*[verb] if verb else [], "--help").output
    assert "Example" in text and "zaibei order" in text.split("Example", 1)[1]
    assert not verb or "--json" in text
