"""Appends that only tell what is committed wait a moment: the next entries tell it too, and half of all messages need not leave.

A notice may be late or lost at any time, for Raft allows it: it is repeated by whatever is sent to that member next. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from replica.consensus.raft.progress import Feeding, Progress
from replica.consensus.raft.values import Kind, MemberId, Message

Place = tuple[int, MemberId]  # group, member


def is_notice(message: Message, progress: Progress | None) -> bool:
    """An append without entries to a member that follows without a gap: nothing waits for its answer."""
    return message.kind is Kind.APPEND and not message.entries and progress is not None and progress.feeding is Feeding.REPLICATE


class Notices:
    """What is held back, one notice a group and member: the newest."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[Place, Message] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, group: int, message: Message) -> None:
        self._held[group, message.to] = message

    def told(self, group: int, message: Message) -> None:
        """This append leaves now: it tells what the one that is held would have told."""
        if self._held and message.kind is Kind.APPEND:
            self._held.pop((group, message.to), None)

    def take_of(self, group: int, member: MemberId) -> Message | None:
        """What is held of one group for one member."""
        return self._held.pop((group, member), None) if self._held else None

    def take(self) -> Sequence[tuple[int, Message]]:
        """All that is held: (group, message)."""
        held = [(group, message) for (group, _), message in self._held.items()]
        self._held.clear()
        return held
