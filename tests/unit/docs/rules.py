"""The rules of ops/docs/semantics.md, the test that turns red without each, and how each is switched off to see that.

`off` is a Plant (test_rules.py runs the test under it and expects red) or the id of a test that holds the same scenario with the
rule taken out and itself expects the failure. The table of ops/docs/rules.md is written from here:
`python -m tests.unit.docs.rules`.
"""

from __future__ import annotations

from pathlib import Path

from tests.unit.docs.planting import Plant
from tests.unit.docs.rows_answers import ANSWERING
from tests.unit.docs.rows_authority import AUTHORITY
from tests.unit.docs.rows_copy import COPY
from tests.unit.docs.rows_failback import FAILBACK
from tests.unit.docs.rows_ground import GROUND

PAGE = Path(__file__).resolve().parents[3] / "ops" / "docs" / "rules.md"
BEGIN, END = "<!-- table: written by `python -m tests.unit.docs.rules` -->", "<!-- end of table -->"
ROWS = [*COPY, *ANSWERING, *AUTHORITY, *FAILBACK, *GROUND]


def table() -> str:
    """The table of ops/docs/rules.md."""
    lines = ["| rule | | what its absence would do | test that turns red | switched off by |", "| --- | --- | --- | --- | --- |"]
    for row in ROWS:
        off = (
            f"`{row.off.where}`: {_code(row.off.old)} → {_code(row.off.new)}"
            if isinstance(row.off, Plant)
            else f"twin: `{row.off}`"
        )
        lines.append(f"| {row.number} | {row.name} | {row.prevents} | `{row.test}` | {off} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    """One line of code inside a table's cell."""
    flat = " ".join(text.split()).replace("|", "\\|")
    return f"`{flat}`" if flat else "nothing"


def written(page: str) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
