"""Calls of the admin channel about prefixes that move from one source to another: look, plan, one step after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import Any, Protocol

Row = dict[str, Any]


class MoveCalls(Protocol):
    """Part of AdminCalls. Each call may raise ZaibeiError; `source` names the group whose leader answers."""

    async def move_list(self, prefix: str) -> Row:
        """Who answers for a prefix ("": of none), and every move of it (of any) that this member knows."""
        ...

    async def move_plan(self, source: str, prefix: str, to: str) -> Row:
        """Look, change nothing: what a move would do, and its token; of one that is under way, that one's."""
        ...

    async def move_look(self, source: str, prefix: str, token: str) -> Row:
        """The move in this group (`row`) and in the control group (`recorded`), None where it is not; `alone`: there is none."""
        ...

    async def move_step(self, source: str, prefix: str, to: str, token: str, step: str, by: str, reason: str) -> Row:
        """`freeze`, `release`, `drop` or `cancel`, at the old group. `drop` does a part at a time, until `done`."""
        ...

    async def move_record(self, source: str, token: str) -> Row:
        """Have the control group record what this group released, or acquired."""
        ...

    async def move_page(self, source: str, token: str, after: str) -> Row:
        """Records of the released range behind a key (hex; "": from the first), as stored: hex of key and value."""
        ...

    async def move_take(self, source: str, token: str, rows: list[list[str]]) -> Row:
        """Put records of the released range into the new group."""
        ...

    async def move_acquire(self, source: str, token: str) -> Row:
        """The new group has it all: its digest is that of the old one, or VERIFICATION_FAILED."""
        ...


_STEP: Row = {"source": str, "prefix": str, "to": str, "token": str, "step": str, "by": str, "reason": str}
MOVE_SIGNATURES: MappingProxyType[str, tuple[Any, bool, dict[str, Any]]] = MappingProxyType(
    {
        "move_list": (Row, False, {"prefix": str}),
        "move_plan": (Row, False, {"source": str, "prefix": str, "to": str}),
        "move_look": (Row, False, {"source": str, "prefix": str, "token": str}),
        "move_step": (Row, True, _STEP),
        "move_record": (Row, True, {"source": str, "token": str}),
        "move_page": (Row, False, {"source": str, "token": str, "after": str}),
        "move_take": (Row, True, {"source": str, "token": str, "rows": list[list[str]]}),
        "move_acquire": (Row, True, {"source": str, "token": str}),
    }
)
"""Call -> type of its result, whether it may change something or take long, its parameters."""


class MoveClient(ABC):
    """The command line's end of them; part of AdminClient."""

    @abstractmethod
    def call(self, name: str, /, **params: Any) -> Any: ...

    def move_list(self, prefix: str) -> Row:
        answer: Row = self.call("move_list", prefix=prefix)
        return answer

    def move_plan(self, source: str, prefix: str, to: str) -> Row:
        answer: Row = self.call("move_plan", source=source, prefix=prefix, to=to)
        return answer

    def move_look(self, source: str, prefix: str, token: str) -> Row:
        answer: Row = self.call("move_look", source=source, prefix=prefix, token=token)
        return answer

    def move_step(self, source: str, prefix: str, to: str, token: str, step: str, by: str, reason: str) -> Row:
        params = {"source": source, "prefix": prefix, "to": to, "token": token, "step": step, "by": by, "reason": reason}
        answer: Row = self.call("move_step", **params)
        return answer

    def move_record(self, source: str, token: str) -> Row:
        answer: Row = self.call("move_record", source=source, token=token)
        return answer

    def move_page(self, source: str, token: str, after: str) -> Row:
        answer: Row = self.call("move_page", source=source, token=token, after=after)
        return answer

    def move_take(self, source: str, token: str, rows: list[list[str]]) -> Row:
        answer: Row = self.call("move_take", source=source, token=token, rows=rows)
        return answer

    def move_acquire(self, source: str, token: str) -> Row:
        answer: Row = self.call("move_acquire", source=source, token=token)
        return answer


class MemoryMoves:
    """Memory twin of them, over answers it was given by name of the call; part of MemoryMember."""

    moves: dict[str, Any]

    async def move_list(self, prefix: str) -> Row:
        return dict(self.moves["move_list"], prefix=prefix)

    async def move_plan(self, source: str, prefix: str, to: str) -> Row:
        return dict(self.moves["move_plan"], source=source, prefix=prefix, to=to)

    async def move_look(self, source: str, prefix: str, token: str) -> Row:
        return dict(self.moves["move_look"], source=source)

    async def move_step(self, source: str, prefix: str, to: str, token: str, step: str, by: str, reason: str) -> Row:
        return dict(self.moves["move_step"], source=source, step=step)

    async def move_record(self, source: str, token: str) -> Row:
        return dict(self.moves["move_record"], source=source)

    async def move_page(self, source: str, token: str, after: str) -> Row:
        return dict(self.moves["move_page"], source=source)

    async def move_take(self, source: str, token: str, rows: list[list[str]]) -> Row:
        return dict(self.moves["move_take"], source=source)

    async def move_acquire(self, source: str, token: str) -> Row:
        return dict(self.moves["move_acquire"], source=source)
