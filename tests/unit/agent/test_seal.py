"""A log that ends for a planned switchover: nothing more is taken, until it is opened again or a new epoch begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from replica.agent.edge_seal import Seal
from replica.model.errors import Code, ZaibeiError
from tests.unit.agent.helpers import commit, grant, key, opened, put


def test_a_sealed_log_takes_nothing_and_says_where_it_ended(tmp_path: Path) -> None:
    log = opened(tmp_path)
    end = commit(log, put("a", "1"), put("b", "1"))
    sealed = Seal(log).seal()
    assert (sealed.position, sealed.records, sealed) == (end, 2, log.content.digest)
    assert Seal(log).seal() == sealed, "twice is harmless"
    with pytest.raises(ZaibeiError, match="switched over") as refused:
        commit(log, put("c", "late"))
    assert refused.value.code is Code.FENCED and log.head() == end
    Seal(log).unseal()
    assert commit(log, put("c", "1")).seq == end.seq + 1
    log.close()


def test_a_new_epoch_opens_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    commit(log, put("a", "1"))
    Seal(log).seal()
    log._accept_grant(grant(log.head()))
    commit(log, put("b", "1"))
    assert log.content.values_of([key("b")])
    log.close()


def test_a_process_that_was_started_anew_is_not_sealed_since_its_guard_has_no_lease(tmp_path: Path) -> None:
    log = opened(tmp_path)
    commit(log, put("a", "1"))
    Seal(log).seal()
    log.close()
    again = opened(tmp_path)
    assert not again.sealed
    again.close()
