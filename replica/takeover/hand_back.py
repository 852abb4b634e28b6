"""Before our sites are withdrawn at a hand-back: does the node itself answer what was registered here? Pure.

A node's registry may hold what was registered here while its resolver still reads its old files: whoever is sent there then gets
what was before. So records that were registered, changed or deleted here are asked of the node's own addresses, and our sites
stay until every address that answers has answered each of them as we hold it (SEMANTICS 8).

| what the node answers | then |
| --- | --- |
| all as held, at each address that answers | the sites are withdrawn |
| one otherwise | they stay, people are told which |
| one not at all, at an address that answers others, or at every address | they stay, people are told which |
| nothing was registered here, or nobody can be asked | they are withdrawn, and the reason says so |

Compared are index, type and data of the values that anybody may read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from replica.model.handle.values import Content
from replica.model.node import Endpoint

RECORDS_MAX = 20  # evenly chosen of what was registered here; the newest change and a deletion beside them
SHOWN_MAX = 5

Ask = Callable[[Sequence[Endpoint], Sequence[str]], Awaitable[list[Content | None]]]
"""Asks one server, at any of its endpoints, for names; what it answers to each in their order, None: it does not."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one comparison found.

    Args:
        records: how many were compared.
        why_none: why nobody was asked, where records is 0.
        old: names that are answered otherwise than held here; silent: those that were not answered.
        servers: addresses that answered; mute: those that answered nothing, while others did.
    """

    records: int = 0
    why_none: str = ""
    old: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    mute: tuple[str, ...] = ()

    @property
    def agreed(self) -> bool:
        """Our sites may go."""
        return not self.old and not self.silent

    def reason(self) -> str:
        """Why they go; committed with it, for the audit."""
        if not self.records:
            return f"the node's own answers were not compared: {self.why_none}"
        beside = f"; {', '.join(self.mute)} did not answer" if self.mute else ""
        return f"the node itself answers {self.records} records that were changed here as they are{beside}"

    def trouble(self, source: str) -> str:
        """What differs, and what to do; empty when nothing does."""
        if self.agreed:
            return ""
        told = []
        if self.old:
            told.append(
                f"the resolver of {source} at {', '.join(self.servers)} still answers {_few(self.old)} otherwise than it stands"
                f" here ({len(self.old)} of {self.records} asked)"
            )
        if self.silent:
            told.append(f"the resolver of {source} does not answer {_few(self.silent)} ({len(self.silent)} of {self.records})")
        anyhow = f"to withdraw them whatever it answers: zaibei takeover withdraw {source}"
        return f"{'; '.join(told)}: our sites stay. Next: let it read its new content, it is asked again every second; {anyhow}"

    def view(self) -> dict[str, object]:
        """The part `answers` of the stable JSON contract of `zaibei failback status --json`."""
        return {
            "agreed": self.agreed,
            "records": self.records,
            "why_none": self.why_none,
            "old": list(self.old),
            "silent": list(self.silent),
            "servers": list(self.servers),
            "mute": list(self.mute),
        }


def _few(names: tuple[str, ...]) -> str:
    more = len(names) - SHOWN_MAX
    return ", ".join(names[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def spread(count: int, most: int = RECORDS_MAX) -> list[int]:
    """Up to `most` of `count` places, evenly, the last one among them."""
    if count <= most:
        return list(range(count))
    return [(place + 1) * count // most - 1 for place in range(most)]


def answers_of(names: Sequence[str], said: Mapping[str, Mapping[str, bool | None]]) -> Answers:
    """Out of what each server answered.

    Args:
        names: all that were asked for.
        said: server -> name -> it answered as it is held here; None: it did not answer that one.
    """
    speaking = [server for server, by_name in said.items() if any(one is not None for one in by_name.values())]
    return Answers(
        records=len(names),
        old=tuple(name for name in names if any(said[server].get(name) is False for server in speaking)),
        silent=tuple(name for name in names if not speaking or any(said[server].get(name) is None for server in speaking)),
        servers=tuple(speaking),
        mute=tuple(server for server in said if server not in speaking),
    )
