"""`zaibei help`: pages about what all commands share."""

from __future__ import annotations

import click

from ops.cli.exits import MEANING
from ops.cli.style import Console, styled, table
from replica.model.errors import Code, ZaibeiError

JSON_TEXT = """\
With --json a command writes exactly one JSON document to standard output and nothing else; remarks go to standard error.

  * Fields are added over time, never renamed or given another meaning. Unknown fields are to be ignored.
  * null means UNKNOWN. UNKNOWN is never OK.
  * Times are Unix milliseconds (..._ms) or seconds (..._s); positions are lineage:epoch:seq:chain in hex.
  * A failure is {"error": {"code", "message", "exit", "definite", "retry"}}; `exit` is the exit code, `code` is stable.
    definite false: whether it was done is not known. retry true: the same command may succeed later.
  * Commands that watch write one document a line.
"""

PLANS_TEXT = """\
What could hurt is done in two steps. `plan` looks, changes nothing and prints a token; `run --plan TOKEN` does exactly what was
planned, and is refused (exit 4) once the world is no longer as it was. Running the same token twice is harmless.

Release and discard of what is held also need two people:

  zaibei hold list
  zaibei hold plan SOURCE/ID release       prints the plan and its token
  zaibei hold sign TOKEN --key A.key       first operator
  zaibei hold sign TOKEN --key B.key       second operator; another person, another key
  zaibei hold run --plan TOKEN

An operator without access to the member's machine signs the plan's text elsewhere:

  zaibei hold plan SOURCE/ID release --out plan.txt
  zaibei operator sign plan.txt --key A.key > a.json
  zaibei hold sign TOKEN --approval a.json
"""

PAGES = {
    "exit-codes": "what the number a command ends with means",
    "json": "what scripts can rely on",
    "plans": "plan, sign, run",
}


@click.command("help")
@click.argument("topic", required=False, type=click.Choice(list(PAGES)))
@styled
def topics(console: Console, topic: str | None) -> None:
    """Pages about what all commands share.

    \b
    Examples:
      zaibei help exit-codes
      zaibei help plans
    """
    match topic:
        case "exit-codes":
            rows = [(int(code), text) for code, text in MEANING.items()]
            document = {"exit_codes": [{"exit": code, "meaning": text} for code, text in rows]}
            console.answer(document, table(["exit", "meaning"], rows))
        case "json":
            console.answer({"topic": topic, "text": JSON_TEXT}, JSON_TEXT)
        case "plans":
            console.answer({"topic": topic, "text": PLANS_TEXT}, PLANS_TEXT)
        case None:
            console.answer(
                {"topics": PAGES}, table(["topic", "about"], PAGES.items()), "Next: zaibei help TOPIC, or zaibei COMMAND --help"
            )
        case _:
            raise ZaibeiError(Code.NOT_FOUND, f"no page {topic!r}")
