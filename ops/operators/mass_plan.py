"""The text of a mass takeover: many sources, one act, one token (SEMANTICS 9). Pure.

Every source has one line that holds what must not change between looking, signing and running: which epoch, which prefixes, which
fence. The text is what people sign and what is committed in each source's own group; running it compares each line with the
source as it is then, so that one that changed is left alone and the others are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import prefix_text
from replica.model.ladder import ABORTABLE, Fence
from replica.model.ladder_epochs import fence_of
from replica.takeover.ladder_plan import Accepting

MASS_VERSION = "zaibei mass takeover 1"
SOURCES_MAX = 200  # of one act: the text is committed in the group of each
SOURCE = "source "


@dataclass(frozen=True, slots=True)
class Scope:
    """What is taken over of each source, and which loss of each is accepted."""

    registration: bool
    loss: int = 0
    unknown_loss: bool = False

    @property
    def accepting(self) -> Accepting:
        return Accepting(self.loss, self.unknown_loss)


def line_of(state: GroupState, scope: Scope) -> str:
    """One source as it is now; the same line later says that nothing changed that matters."""
    prefixes = " ".join(sorted(prefix_text(prefix) for prefix in state.prefixes))
    parts = [f"lineage {state.position.lineage.hex()} epoch {state.position.epoch}", f"prefixes {prefixes}"]
    if scope.registration:
        ladder, fence = state.ladder, fence_of(state)
        acts = ladder.acts if ladder.stage in ABORTABLE else ladder.acts + 1
        lease = f" after its lease of {ladder.lease_ms} ms" if fence is Fence.WRITE_PATH else ""
        parts = [f"act number {acts}", f"closes {parts[0]}", f"fence {fence.name.lower()}{lease}", parts[1]]
    return f"{SOURCE}{state.source}: {', '.join(parts)}"


def text_of(lines: Mapping[str, str], scope: Scope) -> str:
    """The canonical text.

    Args:
        lines: by source name, as `line_of` makes them.
    Raises:
        ZaibeiError(MALFORMED): no source, or more than SOURCES_MAX.
    """
    if not 0 < len(lines) <= SOURCES_MAX:
        raise ZaibeiError(Code.MALFORMED, f"{len(lines)} sources: one act takes over 1 to {SOURCES_MAX}")
    what = "registrations and resolution, approved by two" if scope.registration else "resolution"
    unknown = ", and one nobody can count" if scope.unknown_loss else ""
    loss = [f"accepts a loss of at most {scope.loss} changes of each{unknown}"] if scope.registration else []
    return "\n".join([MASS_VERSION, what, *loss, *(lines[name] for name in sorted(lines))]) + "\n"


def lines_in(text: str) -> dict[str, str]:
    """Inverse of `text_of`, as far as sources go: name -> line, in the text's order."""
    found = (line for line in text.splitlines() if line.startswith(SOURCE))
    return {line.removeprefix(SOURCE).partition(": ")[0]: line for line in found}


@dataclass(frozen=True, slots=True)
class Seen:
    """One source, for people.

    Args:
        refusal: why it is not in the act; empty: it is. hint: why this member could not carry it out now.
    """

    source: str
    verdict: str
    age_ms: int | None
    records: int
    behind: int | None
    line: str
    refusal: str
    hint: str = ""

    def view(self) -> dict[str, object]:
        """Part of the stable JSON contract of `zaibei takeover mass plan --json`."""
        return {
            "source": self.source,
            "verdict": self.verdict,
            "age_ms": self.age_ms,
            "records": self.records,
            "behind": self.behind,
            "takes": not self.refusal,
            "why_not": self.refusal or self.hint,
        }


def planned(seen: Iterable[Seen], scope: Scope) -> str:
    """The text over all sources that can be taken over. Raises ZaibeiError as `text_of`."""
    return text_of({one.source: one.line for one in seen if not one.refusal}, scope)
