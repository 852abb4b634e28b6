"""`zaibei demo` as a new user runs it: the whole story on real registrations and three members, judged by the command itself.

Two and a half minutes; `make test ARGS="-m 'not demo'"` leaves it out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ops.cli.exits import Exit

ROOT = Path(__file__).resolve().parents[2]
RECORDS_MIN = 50_000
RTO_MS_MAX = 1_000
NATIONAL_TTL_S = 10
FAILOVER_MS_MAX = 1_000
FIGURES = (
    "records", "changes", "rto_first_ms", "rto_steady_ms", "rto_port_ms", "rto_hedged_ms", "rto_national_ms", "national_ttl_s",
    "acked_lost", "source_lost", "failed_resolutions", "digest_equal", "verdict",
    "members", "failover_ms", "frozen_ms", "all_down_ms", "failed_while_all_down", "reseed_s",
    "registrations_acked", "registrations_lost",
    "hosted_filled", "hosted_registered", "graduation_s", "hosted_lookups", "hosted_failed", "hosted_lost", "hosted_digest_equal",
)  # fmt: skip


@pytest.mark.demo
@pytest.mark.timeout(900)  # the command repeats a run that its own machine spoiled, twice at most
def test_the_whole_story_passes(tmp_path: Path) -> None:
    page = tmp_path / "demo.html"
    command = [sys.executable, "-m", "ops.cli.main", "demo", "--json", "--page", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(FIGURES) <= set(told), told
    verdicts = {Exit.DONE: "pass", Exit.FAILED: "fail", Exit.UNKNOWN: "inconclusive"}
    assert told["verdict"] == verdicts[Exit(done.returncode)]
    if told["verdict"] == "inconclusive":
        pytest.xfail(f"inconclusive after {told['runs']} runs, not a verdict on the program: {'; '.join(told['reasons'])}")
    assert told["verdict"] == "pass", told["reasons"]
    assert (told["acked_lost"], told["failed_resolutions"], told["digest_equal"]) == (0, 0, True)
    assert told["records"] >= RECORDS_MIN and told["changes"] > 0 and told["national_ttl_s"] == NATIONAL_TTL_S
    assert 0 < told["rto_first_ms"] < RTO_MS_MAX
    assert (told["members"], told["registrations_lost"]) == (3, 0)
    assert told["registrations_acked"] > 0
    assert 0 < told["failover_ms"] < FAILOVER_MS_MAX and 0 < told["frozen_ms"] < FAILOVER_MS_MAX
    assert told["all_down_ms"] > 0 and told["reseed_s"] > 0
    assert (told["hosted_filled"], told["hosted_failed"], told["hosted_lost"], told["hosted_digest_equal"]) == (2_000, 0, 0, True)
    assert told["hosted_registered"] > 0 and told["hosted_lookups"] > 0 and told["graduation_s"] > 0
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text and all(member in text for member in ("member-1", "member-2", "member-3"))
