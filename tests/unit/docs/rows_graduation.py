"""Rules of a source that lives here and leaves for a node of its own (semantics 8)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rule_rows import Row

LEAVING, WHOLE = "tests/unit/model/test_ladder_leaving.py", "tests/simulation/test_graduation.py"

GRADUATION = [
    Row(
        "8",
        "nothing of a node's is applied while its source lives here",
        "a second writer, before anything was handed over",
        "tests/unit/store/test_registration.py::test_no_batch_of_a_node_is_applied_where_the_source_lives_here",
        Plant(
            "replica.store.edge_store:SourceStore._apply", "if self._stored.group.closed:", "if self._stored.group.ladder.closed:"
        ),
    ),
    Row(
        "8",
        "only what lives here and began with nothing leaves from NORMAL",
        "a node that copies half a history, or a way around the fence",
        f"{LEAVING}::test_only_what_lives_here_and_began_with_nothing_can_leave",
        Plant("replica.model.ladder_leaving:unfit_to_leave", "if not group.lives_here:", "if False:"),
    ),
    Row(
        "8",
        "a graduation that fails leaves the tenant as it was",
        "a tenant that stands half way out of the door for ever",
        f"{LEAVING}::test_what_fails_leads_back_and_leaves_nothing",
        Plant("replica.model.ladder_leaving:stays", 'act="", closed_at=None', 'act=""'),
    ),
    Row(
        "8",
        "a node that begins is empty",
        "its own writes overwritten, or ours",
        f"{WHOLE}::test_a_node_that_wrote_by_itself_is_not_begun_with",
        Plant("replica.takeover.failback:Failback._before_the_freeze", "if state.lives_here and node.own.seq:", "if False:"),
    ),
]
