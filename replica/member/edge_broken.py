"""A broken invariant anywhere on the event loop stops the process; what else nobody waited for is logged as asyncio does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from replica.model.errors import InvariantBroken

log = logging.getLogger("zaibei.member")


def broken_in(exc: BaseException | None) -> InvariantBroken | None:
    """The broken invariant in an exception, in a group of them, or behind one."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        if isinstance(exc, InvariantBroken):
            return exc
        if isinstance(exc, BaseExceptionGroup):
            return next(filter(None, map(broken_in, exc.exceptions)), None)
        exc = exc.__cause__ or exc.__context__
    return None


def tell_end(task: asyncio.Task[None]) -> None:
    """Done-callback of a task that is to run on, and is held so that it can be stopped: asyncio tells what such a task ended with
    only when nobody holds it any more, so a broken invariant would be heard of at the member's end."""
    if not task.cancelled() and (exc := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": f"{task.get_name()} broke off", "exception": exc, "task": task})


@contextmanager
def stopping_on_broken(loop: asyncio.AbstractEventLoop, stop: Callable[[BaseException], None]) -> Iterator[None]:
    """While the block runs, `stop` is told of each broken invariant that a callback or a task of the loop ended with."""
    earlier = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        broken = broken_in(context.get("exception"))
        if broken is None:
            if earlier is not None:
                earlier(loop, context)
            else:
                loop.default_exception_handler(context)
            return
        log.critical(
            "a rule of ours does not hold: this member stops rather than go on wrongly; what was acknowledged is on disk",
            exc_info=broken,
            extra={"fields": {"rule": str(broken), "where": context.get("message", "")}},
        )
        stop(broken)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(earlier)
