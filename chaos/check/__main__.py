"""`python -m chaos.check HISTORY…`: judges histories (JSON lines); the last line is `N passed, N failed, N unknown`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from chaos.check.history import Operation, parse
from chaos.check.judge import judge, summary
from chaos.check.linear import STEPS_MAX
from chaos.check.resolution import STALE_MS_MAX
from chaos.check.verdict import Finding, Verdict, worst
from replica.model.errors import ZaibeiError

EXITS = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNKNOWN: 11}


@click.command(help=__doc__)
@click.argument("histories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--steps-max", default=STEPS_MAX, show_default=True, help="Bound of the search for one key.")
@click.option("--stale-ms-max", default=STALE_MS_MAX, show_default=True, help="How late a fresh answer may be, in ms.")
@click.option("--all", "everything", is_flag=True, help="Print what passed too.")
def main(histories: tuple[Path, ...], steps_max: int, stale_ms_max: int, everything: bool) -> None:
    """Judge files; exit 0 only when everything passed, 1 when something failed, 11 when something is unknown."""
    findings: list[Finding] = []
    for path in histories:
        found = _judge_file(path, steps_max, stale_ms_max)
        findings += found
        for finding in found:
            if everything or finding.verdict is not Verdict.PASS:
                print(finding)
    print(summary(findings))
    sys.exit(EXITS[worst(finding.verdict for finding in findings)])


def _judge_file(path: Path, steps_max: int, stale_ms_max: int) -> list[Finding]:
    try:
        with path.open(encoding="utf-8") as lines:
            operations: list[Operation] = list(parse(lines))
    except (OSError, UnicodeDecodeError, ZaibeiError) as exc:
        return [Finding("history", str(path), Verdict.UNKNOWN, f"it cannot be read: {exc}")]
    return judge(operations, steps_max=steps_max, stale_ms_max=stale_ms_max)


if __name__ == "__main__":
    main()
