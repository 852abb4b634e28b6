"""Turns for groups that look for a leader: were all of them to elect at once, none could finish. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Turns:
    """Hands out places in a ring, a bounded number at a time. The one who was served last comes last."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def take(self, waiting: Sequence[T], at_once_max: int) -> Sequence[T]:
        """Whose turn it is. `waiting`: all that wait now, in an order that stays about the same; few all have their turn."""
        if len(waiting) <= at_once_max:
            return waiting
        first = self._next % len(waiting)
        self._next = first + at_once_max
        taken = [*waiting[first : first + at_once_max]]
        return [*taken, *waiting[: at_once_max - len(taken)]]
