"""The demo's judge: every promise can fail, and what was not seen is never a pass."""

from dataclasses import replace

import pytest

from chaos.check.history import Op, Operation
from ops.demo.cluster_judge import ClusterTold
from ops.demo.hosting_judge import TELL_MIN, Deed, Did, HostingTold
from ops.demo.judge import MEANING, NS_PER_MS, Hang, History, Kill, Lane, Lookup, Verdict, judge

AT = 10_000 * NS_PER_MS


def lookups(lane: Lane, down_ms: int, *, took_ms: int = 2, until_ms: int = 8_000) -> list[Lookup]:
    return [
        Lookup(lane, "tcp", "a", "88.118/x", AT + ms * NS_PER_MS, AT + (ms + took_ms) * NS_PER_MS, right=ms < 0 or ms >= down_ms)
        for ms in range(-500, until_ms, 50)
    ]


def operation(op: Op, value: int | None, ok: bool | None, at: int, out: tuple[int, ...] | None = None) -> Operation:
    return Operation("c", "LIST-1", op, value, None, out, op is Op.GET, ok, at, at + 1)


ACKED = operation(Op.APPEND, 1, True, 10)


def cluster(**changes: object) -> ClusterTold:
    told = ClusterTold(
        members=3,
        failover_ms=700.0,
        frozen_ms=800.0,
        all_down_ns=(AT + 6_000 * NS_PER_MS, AT + 9_000 * NS_PER_MS),
        reseed_s=2.5,
        history=[ACKED, operation(Op.GET, None, True, 20, (1,))],
        whole=True,
    )
    return replace(told, **changes)  # type: ignore[arg-type]


def deeds(did: Did, name: str, from_ms: int, count: int, *, ok: bool | None = True, took_ms: int = 2) -> list[Deed]:
    begins = [AT + (from_ms + number) * NS_PER_MS for number in range(count)]
    return [Deed(did, name, began, began + took_ms * NS_PER_MS, ok) for began in begins]


LEFT = (AT + 1_000 * NS_PER_MS, AT + 4_500 * NS_PER_MS)  # the region leaves
REGISTERED = deeds(Did.REGISTER, "88.320/NEW-1", 500, 1)
LOOKED = [one for from_ms in (0, 2_000, 5_000) for one in deeds(Did.LOOKUP, "88.320/NEW-1", from_ms, TELL_MIN)]
LAST = deeds(Did.LAST, "88.320/NEW-1", 9_000, 3)


def hosting(**changes: object) -> HostingTold:
    told = HostingTold(filled=2_000, left_ns=LEFT, digest_equal=True, deeds=[*REGISTERED, *LOOKED, *LAST], whole=True)
    return replace(told, **changes)  # type: ignore[arg-type]


def good(**changes: object) -> History:
    history = History(
        lookups=lookups(Lane.RECURSIVE, 600)
        + lookups(Lane.PORT, 0)
        + lookups(Lane.HEDGED, 0, took_ms=60)
        + lookups(Lane.NATIONAL, 7_000),
        kills=[Kill("a", AT, AT - 10 * NS_PER_MS)],
        prober_late_ms=3.0,
        records=1,
        changes=1,
        receipted_lost=[],
        source_lost=0,
        digest_equal=True,
        national_ttl_s=10,
        cluster=cluster(),
        hosting=hosting(),
    )
    return replace(history, **changes)  # type: ignore[arg-type]


HELD_UP = [*lookups(Lane.PORT, 0), *lookups(Lane.HEDGED, 0, took_ms=60), *lookups(Lane.NATIONAL, 7_000)]
LIE = Lookup(Lane.PORT, "tcp", "a", "88.118/x", AT, AT + NS_PER_MS, right=False, note="100 of us", lied=True)
SLOW_HEDGED = [
    *lookups(Lane.RECURSIVE, 600),
    *lookups(Lane.PORT, 0),
    *lookups(Lane.HEDGED, 0, took_ms=1_600),
    *lookups(Lane.NATIONAL, 7_000),
]


def test_a_good_run_passes_and_its_figures_are_what_clients_saw() -> None:
    judged = judge(good())
    assert (judged.verdict, judged.reasons) == (Verdict.PASS, ())
    figures = judged.figures
    assert (figures["rto_first_ms"], figures["rto_steady_ms"]) == (602.0, 600.0)
    assert (figures["rto_port_ms"], figures["rto_hedged_ms"], figures["rto_national_ms"]) == (2.0, 60.0, 7_002.0)


@pytest.mark.parametrize(
    ("changes", "verdict", "word"),
    [
        ({"receipted_lost": ["88.118/y"]}, Verdict.FAIL, "lost"),
        ({"digest_equal": False}, Verdict.FAIL, "differ"),
        ({"digest_equal": None}, Verdict.INCONCLUSIVE, "could not be compared"),
        ({"prober_late_ms": 101.0}, Verdict.INCONCLUSIVE, "late"),
        ({"prober_late_ms": 101.0, "receipted_lost": ["88.118/y"]}, Verdict.FAIL, "lost"),
        ({"kills": []}, Verdict.INCONCLUSIVE, "no node"),
        ({"kills": [Kill("a", AT, AT - 1_001 * NS_PER_MS)]}, Verdict.INCONCLUSIVE, "answered nobody"),
        ({"kills": [Kill("a", AT, None)]}, Verdict.INCONCLUSIVE, "answered nobody"),
        ({"lookups": lookups(Lane.RECURSIVE, 1_000) + lookups(Lane.PORT, 0)}, Verdict.FAIL, "rto_first"),
        ({"lookups": lookups(Lane.RECURSIVE, 100)}, Verdict.INCONCLUSIVE, "rto_port_ms could not"),
        ({"lookups": []}, Verdict.INCONCLUSIVE, "could not be measured"),
        # what a planted fault in the system under test leaves in the clients' history
        ({"broken": "not taken over within 5 s"}, Verdict.FAIL, "could not go on"),
        ({"lookups": [*HELD_UP, *lookups(Lane.RECURSIVE, 99_000)]}, Verdict.FAIL, "nobody was answered through recursive"),
        ({"lookups": [*HELD_UP, *lookups(Lane.RECURSIVE, 600), LIE]}, Verdict.FAIL, "wrong answers"),
        ({"lookups": [*HELD_UP, *lookups(Lane.RECURSIVE, 600), LIE], "prober_late_ms": 500.0}, Verdict.FAIL, "wrong answers"),
        ({"ended_ns": AT + 13_500 * NS_PER_MS}, Verdict.INCONCLUSIVE, "ended no lookup for"),
        ({"hangs": [Hang("a", AT, AT + NS_PER_MS)]}, Verdict.PASS, ""),
        ({"hangs": [Hang("b", AT, AT + NS_PER_MS)]}, Verdict.INCONCLUSIVE, "hung_hedged_ms"),
        ({"hangs": [Hang("a", AT, AT + NS_PER_MS)], "lookups": SLOW_HEDGED}, Verdict.FAIL, "while a node hung"),
    ],
)
def test_what_is_wrong_fails_and_what_was_not_seen_is_inconclusive(
    changes: dict[str, object], verdict: Verdict, word: str
) -> None:
    judged = judge(good(**changes))
    assert judged.verdict == verdict
    assert any(word in reason for reason in judged.reasons) or not word


@pytest.mark.parametrize(
    ("changes", "verdict", "word"),
    [
        ({"history": [ACKED, operation(Op.GET, None, True, 20, ())]}, Verdict.FAIL, "registrations"),
        ({"history": [ACKED]}, Verdict.INCONCLUSIVE, "registrations_lost could not"),
        ({"history": []}, Verdict.INCONCLUSIVE, "it is empty"),
        ({"history": [operation(Op.APPEND, 1, None, 10)]}, Verdict.INCONCLUSIVE, "nothing was tried"),
        ({"whole": False}, Verdict.INCONCLUSIVE, "registrations_lost could not"),
        ({"failover_ms": 1_000.0}, Verdict.FAIL, "failover_ms is"),
        ({"frozen_ms": 1_000.0}, Verdict.FAIL, "frozen_ms is"),
        ({"failover_ms": None}, Verdict.INCONCLUSIVE, "failover_ms could not"),
        ({"all_down_ns": None}, Verdict.INCONCLUSIVE, "all_down_ms could not"),
        ({"reseed_s": None}, Verdict.INCONCLUSIVE, "reseed_s could not"),
    ],
)
def test_what_happened_to_the_members_counts(changes: dict[str, object], verdict: Verdict, word: str) -> None:
    judged = judge(good(cluster=cluster(**changes)))
    assert judged.verdict == verdict
    assert any(word in reason for reason in judged.reasons)


@pytest.mark.parametrize(
    ("changes", "verdict", "word"),
    [
        ({"digest_equal": False}, Verdict.FAIL, "different contents"),
        ({"digest_equal": None}, Verdict.INCONCLUSIVE, "hosted_digest_equal could not"),
        (
            {"deeds": [*REGISTERED, *LOOKED, *LAST, *deeds(Did.LOOKUP, "x", 3_000, 1, ok=False)]},
            Verdict.FAIL,
            "hosted_failed is 1",
        ),
        (
            {"deeds": [*REGISTERED, *LOOKED, *LAST, *deeds(Did.LOOKUP, "x", 0, 1, took_ms=3_001)]},
            Verdict.FAIL,
            "hosted_failed is 1",
        ),
        ({"deeds": [*REGISTERED, *LOOKED, *LAST, *deeds(Did.LAST, "x", 9_000, 1, ok=False)]}, Verdict.FAIL, "hosted_lost is 1"),
        ({"deeds": [*REGISTERED, *LOOKED]}, Verdict.INCONCLUSIVE, "hosted_lost could not"),
        (
            {"deeds": [*REGISTERED, *deeds(Did.REGISTER, "y", 600, 1), *LOOKED, *LAST]},
            Verdict.INCONCLUSIVE,
            "hosted_lost could not",
        ),
        ({"deeds": [*REGISTERED, *LOOKED[1:], *LAST]}, Verdict.INCONCLUSIVE, "only 19 lookups before"),
        ({"deeds": [*REGISTERED, *LOOKED[:TELL_MIN], *LOOKED[-TELL_MIN:], *LAST]}, Verdict.INCONCLUSIVE, "only 0 lookups while"),
        ({"deeds": [*REGISTERED, *LOOKED[:-1], *LAST]}, Verdict.INCONCLUSIVE, "only 19 lookups after"),
        ({"deeds": [*LOOKED, *LAST]}, Verdict.INCONCLUSIVE, "nothing was registered"),
        ({"filled": None}, Verdict.INCONCLUSIVE, "hosted_filled could not"),
        ({"left_ns": None}, Verdict.INCONCLUSIVE, "graduation_s could not"),
        ({"whole": False}, Verdict.INCONCLUSIVE, "hosted_lookups could not"),
    ],
)
def test_what_happened_to_the_hosted_region_counts(changes: dict[str, object], verdict: Verdict, word: str) -> None:
    judged = judge(good(hosting=hosting(**changes)))
    assert judged.verdict == verdict
    assert any(word in reason for reason in judged.reasons)


@pytest.mark.parametrize(
    "changes", [{"digest_equal": False}, {"deeds": [*REGISTERED, *LOOKED, *deeds(Did.LAST, "x", 0, 1, ok=False)]}]
)
def test_a_late_prober_explains_no_loss_in_the_hosted_region(changes: dict[str, object]) -> None:
    assert judge(good(hosting=hosting(**changes), prober_late_ms=500.0)).verdict is Verdict.FAIL


def test_a_late_prober_explains_no_lost_registration() -> None:
    lost = cluster(history=[ACKED, operation(Op.GET, None, True, 20, ())])
    judged = judge(good(cluster=lost, prober_late_ms=500.0))
    assert (judged.verdict, judged.figures["registrations_lost"]) == (Verdict.FAIL, 1)


def test_lookups_that_fail_while_all_members_are_down_are_counted_apart() -> None:
    failed = Lookup(Lane.HEDGED, "udp", "a", "88.118/x", AT, AT + 3_000 * NS_PER_MS, right=False)
    begun = {"within": AT + 7_000 * NS_PER_MS, "after": AT + 9_001 * NS_PER_MS}
    found = {}
    for name, began in begun.items():
        one = replace(failed, began_ns=began, ended_ns=began + 3_000 * NS_PER_MS)
        judged = judge(good(lookups=[*good().lookups, one]))
        found[name] = (judged.figures["failed_while_all_down"], judged.figures["failed_resolutions"], judged.verdict)
    assert found == {"within": (1, 0, Verdict.PASS), "after": (0, 1, Verdict.FAIL)}


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({"receipt_ms": 1_999.0}, (0, 1, Verdict.PASS)),
        ({"receipt_ms": 2_000.0}, (1, 0, Verdict.FAIL)),
        ({"receipt_ms": None}, (1, 0, Verdict.FAIL)),  # there from the first copy on
        ({"receipt_ms": 100.0, "absent": False}, (1, 0, Verdict.FAIL)),  # another record is never right
    ],
)
def test_a_member_may_not_have_heard_of_a_name_for_as_long_as_a_copy_is_fresh(
    changes: dict[str, object], counted: tuple[int, int, Verdict]
) -> None:
    said = replace(LIE, **{"absent": True, **changes})  # type: ignore[arg-type]
    judged = judge(good(lookups=[*good().lookups, said]))
    assert (judged.figures["wrong_answers"], judged.figures["stale_answers"], judged.verdict) == counted


def test_stale_is_no_excuse_for_the_hedging_client() -> None:
    said = replace(LIE, lane=Lane.HEDGED, absent=True, receipt_ms=100.0)
    judged = judge(good(lookups=[*good().lookups, said]))
    assert (judged.figures["failed_resolutions"], judged.verdict) == (1, Verdict.FAIL)


def test_a_failed_lookup_counts_only_when_the_name_was_receipted_before() -> None:
    lost = Lookup(Lane.HEDGED, "udp", "a", "88.118/new", AT, AT + 3_000 * NS_PER_MS, right=False)
    late = replace(lost, right=True, ended_ns=AT + 3_001 * NS_PER_MS)
    slow = replace(lost, right=True, ended_ns=AT + 1_500 * NS_PER_MS)
    for extra, failed in ((lost, 1), (late, 1), (replace(lost, covered=False), 0), (slow, 0)):
        judged = judge(good(lookups=[*good().lookups, extra]))
        assert judged.figures["failed_resolutions"] == failed
        assert judged.verdict == (Verdict.FAIL if failed else Verdict.PASS)
    assert judge(good(lookups=[*good().lookups, slow])).slow == (slow,)


def test_steady_needs_a_whole_window() -> None:
    short = lookups(Lane.RECURSIVE, 600, until_ms=4_000)
    assert judge(good(lookups=short)).figures["rto_steady_ms"] is None


def test_every_figure_says_what_it_means() -> None:
    assert set(judge(good()).figures) == set(MEANING)
