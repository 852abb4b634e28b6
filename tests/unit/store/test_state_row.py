"""State rows are read by several threads at once: a member opens its stores side by side."""

from __future__ import annotations

import subprocess
import sys

PROCESSES = 6  # each had a chance of one half to crash
AT_ONCE = """
import sys, threading
from replica.model.group_state import GroupState
from replica.store.state_row import Stored, pack_state, unpack_state
sys.setswitchinterval(1e-6)
octets, gate = pack_state(Stored(GroupState("a"))), threading.Barrier(8)
def work():
    gate.wait()
    for _ in range(20):
        assert unpack_state(octets).group.source == "a"
threads = [threading.Thread(target=work) for _ in range(8)]
[one.start() for one in threads]
[one.join() for one in threads]
"""


def test_the_first_rows_of_a_process_may_be_read_by_many_threads_at_once() -> None:
    """By processes of their own: a type's first use is what crashed, with a segmentation fault."""
    ended = [subprocess.run([sys.executable, "-c", AT_ONCE], check=False, timeout=60).returncode for _ in range(PROCESSES)]
    assert ended == [0] * PROCESSES
