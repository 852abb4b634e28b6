"""A source whose certificate differs from our content: which keys differ is found at once, and told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping

from replica.feed.difference import KeyDifference
from replica.feed.edge_difference import Located
from replica.member.copy import SourceCopy
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import key_text
from replica.model.position import Position

log = logging.getLogger("zaibei.member")

SAMPLES = 3


async def locate(copy: SourceCopy) -> Located:
    """Compare with the source at the newest certificate's position.

    Raises:
        ZaibeiError(UNREACHABLE): the source's stream does not end here; UNKNOWN, retry: the position is not held any more.
    """
    position = copy.store.pinned_at
    if position is None:
        text = f"no certificate of {copy.store.source} was compared by this process yet: wait for the next one"
        raise ZaibeiError(Code.UNKNOWN, text, retry=True)
    return await copy.driver.difference(position, copy.store.answer_digest)


def told(found: KeyDifference) -> str:
    """One sentence."""
    if not found.complete:
        return f"{found.buckets:,} of 65,536 parts of the content differ: too many to list. Next: zaibei source reseed plan"
    if not len(found):
        return "no key differs any more"
    parts = (("other value", found.other_value), ("only here", found.only_ours), ("only at the source", found.only_theirs))
    counts = ", ".join(f"{len(keys):,} {name}" for name, keys in parts if keys)
    samples = ", ".join(key_text(key) for _, keys in parts for key in keys[:SAMPLES])
    return f"{counts}: {samples}"


class Differences:
    """Looks after all copies of a member; `warnings` is shown by `zaibei status`."""

    def __init__(self, warnings: MutableMapping[str, str]) -> None:
        self.found: dict[str, Located] = {}
        self._warnings = warnings
        self._looked: dict[str, Position] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def look(self, copy: SourceCopy) -> None:
        """Now and then, on the event loop."""
        name, state = copy.store.source, copy.store.state()
        if state.verified is not False:
            self.found.pop(name, None)
            self._looked.pop(name, None)
            self._warnings.pop(_key(name), None)
            return
        pinned, task = copy.store.pinned_at, self._tasks.get(name)
        if pinned is None or self._looked.get(name) == pinned or (task is not None and not task.done()):
            return
        self._looked[name] = pinned
        self._tasks[name] = asyncio.get_running_loop().create_task(self._locate(name, copy))

    async def _locate(self, name: str, copy: SourceCopy) -> None:
        try:
            located = await locate(copy)
        except (ZaibeiError, TimeoutError) as exc:
            fields = {"source": name, "why": str(exc)}
            log.warning("what differs from the source could not be found yet", extra={"fields": fields})
            return
        self.found[name] = located
        text = f"{name} differs from its source at {located.position.short()}: {told(located.found)}"
        self._warnings[_key(name)] = text
        cost = {"round_trips": located.round_trips, "octets": located.octets, "took_ms": located.took_ms}
        log.error(text, extra={"fields": {"source": name, **cost}})

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


def _key(name: str) -> str:
    return f"difference {name}"
