"""What still has to come, and what becomes of what is not as promised."""

from __future__ import annotations

import random

import pytest

from replica.model.errors import Code, InvariantBroken, ZaibeiError
from replica.model.transfer import FileLine, Manifest
from replica.transfer.memory import describe
from replica.transfer.plan import ATTEMPTS_MAX, FetchPlan, Local, part_name, sort_local
from tests.unit.transfer.support import SOURCE, some_files


def manifest() -> Manifest:
    return describe(some_files(), SOURCE)


def line_of(made: Manifest, name: str) -> FileLine:
    return next(line for line in made.files if line.name == name)


def fresh(made: Manifest) -> FetchPlan:
    return FetchPlan(made, sort_local(made, []), "member 2")


def test_everything_comes_once_and_what_lasts_comes_first() -> None:
    made = manifest()
    plan = fresh(made)
    assert plan.missing_octets == made.octets and plan.done_octets == 0
    order = []
    while not plan.finished:
        found = plan.begin()
        assert found is not None
        line, offset = found
        order.append(line.name)
        assert offset == 0
        if line.octets:
            plan.arrived(line.name, 0, line.octets)
        assert plan.complete(line.name) and plan.judged(line.name, line.sha256)
    assert sorted(order) == [line.name for line in made.files] and plan.missing_octets == 0
    lasting = [name.endswith(".sst") for name in order]
    assert lasting == sorted(lasting, reverse=True)


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_events_ends_with_all_files(seed: int) -> None:
    """Breaks and wrong hashes at random: what is fetched adds up, nothing is asked for twice without a reason."""
    chance, made = random.Random(seed), manifest()
    plan, coming = FetchPlan(made, sort_local(made, []), "member 2", attempts_max=1_000), dict[str, tuple[FileLine, int]]()
    for _ in range(10_000):
        if plan.finished:
            break
        if (found := plan.begin()) is not None:
            coming[found[0].name] = found
        if not coming or chance.random() < 0.05:
            plan.broke({name: chance.randint(0, at) for name, (_, at) in coming.items()})
            coming = {}
            continue
        name = chance.choice(sorted(coming))
        line, at = coming[name]
        if at < line.octets:
            octets = chance.randint(1, line.octets - at)
            plan.arrived(name, at, octets)
            coming[name] = line, at + octets
        elif chance.random() < 0.2:
            assert not plan.judged(name, "0" * 64)
            del coming[name]
        else:
            assert plan.judged(name, line.sha256)
            del coming[name]
    assert plan.finished and plan.done_octets == made.octets


def test_two_files_of_one_content_do_not_share_a_part() -> None:
    made = manifest()
    plan = fresh(made)
    begun = []
    while (found := plan.begin()) is not None:
        begun.append(found[0].name)
    assert ("same-1.sst" in begun) != ("same-2.sst" in begun)


def test_a_wrong_file_is_asked_for_again_and_then_given_up() -> None:
    made = manifest()
    plan = fresh(made)
    found = plan.begin()
    assert found is not None
    line, _ = found
    for attempt in range(ATTEMPTS_MAX):
        plan.arrived(line.name, 0, line.octets)
        if attempt < ATTEMPTS_MAX - 1:
            assert not plan.judged(line.name, "f" * 64)
            assert plan.begin() == (line, 0)
        else:
            with pytest.raises(ZaibeiError) as failed:
                plan.judged(line.name, "f" * 64)
    assert failed.value.code is Code.VERIFICATION_FAILED
    assert line.name in str(failed.value) and "member 2" in str(failed.value)


@pytest.mark.parametrize(
    ("offset", "octets"), [(1, 1), (0, 0), (0, 10_000), (0, -1)], ids=["a gap", "nothing", "beyond the end", "less than nothing"]
)
def test_chunks_that_were_not_asked_for(offset: int, octets: int) -> None:
    plan = fresh(manifest())
    found = plan.begin()
    assert found is not None
    with pytest.raises(ZaibeiError) as refused:
        plan.arrived(found[0].name, offset, octets)
    assert refused.value.code is Code.MALFORMED
    for name in ("../x", "CURRENT"):
        with pytest.raises(ZaibeiError):
            plan.arrived(name, 0, 1)


def test_a_file_is_not_judged_before_it_is_complete() -> None:
    plan = fresh(manifest())
    found = plan.begin()
    assert found is not None
    with pytest.raises(InvariantBroken):
        plan.judged(found[0].name, found[0].sha256)


# ------------------------------------------------------------------------------------------------------ what is there already
def test_what_is_there_is_kept_gone_on_with_moved_or_dropped() -> None:
    made = manifest()
    first, second, third = (line_of(made, f"00000{number}.sst") for number in range(3))
    sorting = sort_local(
        made,
        [
            Local(first.name, first.octets, first.sha256),  # as it should be
            Local(part_name(second), second.octets - 1),  # begun
            Local("000099.sst", third.octets, third.sha256),  # another member named it so
            Local("CURRENT", 16, "0" * 64),  # another content
            Local("f" * 64 + ".part", 5),  # of another manifest
            Local("000077.sst", 3),
        ],
    )
    assert sorting.keep == (first.name,)
    assert dict(sorting.parts) == {second.sha256: second.octets - 1, third.sha256: third.octets}
    assert sorting.rename == (("000099.sst", part_name(third)),)
    assert sorted(sorting.drop) == ["000077.sst", "CURRENT", "f" * 64 + ".part"]
    plan = FetchPlan(made, sorting, "member 2")
    assert plan.missing_octets == made.octets - first.octets - (second.octets - 1) - third.octets


def test_a_part_longer_than_its_file_is_dropped() -> None:
    made = manifest()
    line = made.files[0] if made.files[0].octets else made.files[1]
    sorting = sort_local(made, [Local(part_name(line), line.octets + 1)])
    assert (dict(sorting.parts), sorting.drop) == ({}, (part_name(line),))
