"""Asks one publication adapter, in bounded time, and tells how it ended: in the log, and as what is known of it from now on."""

from __future__ import annotations

import asyncio
import logging
import time

from replica.model.errors import Code, ZaibeiError
from replica.takeover.publish import Confirmation, Publication, Publisher, Standing

PUBLISH_S_MAX = 5.0

log = logging.getLogger("zaibei.takeover")


async def ask(publisher: Publisher, publication: Publication) -> Confirmation:
    """What the adapter confirms. Raises ZaibeiError: as the adapter, or UNREACHABLE (it did not answer in PUBLISH_S_MAX)."""
    try:
        async with asyncio.timeout(PUBLISH_S_MAX):
            return await publisher.publish(publication)
    except TimeoutError:
        trouble = f"{publisher.name} did not answer in {PUBLISH_S_MAX} s"
        raise ZaibeiError(Code.UNREACHABLE, trouble, definite=False, retry=True) from None


async def standing_after(publisher: Publisher, publication: Publication, old: Standing) -> Standing:
    """Ask, and what stands then; a failure waits for its next turn. Raises nothing that `ask` raises."""
    began_ns = _boottime_ns()
    try:
        confirmation = await ask(publisher, publication)
    except ZaibeiError as exc:
        confirmation = Confirmation(False, exc.trouble.message)
    ended_ns = _boottime_ns()
    if confirmation.confirmed:
        new = Standing(publication.serial, publication.withdrawn, True, confirmation.detail)
    else:
        new = old.failed(confirmation.detail, ended_ns)
    _tell(publisher.name, publication, old, new, (ended_ns - began_ns) // 1_000_000)
    return new


def _tell(adapter: str, publication: Publication, old: Standing, new: Standing, took_ms: int) -> None:
    """A failure is told where it begins or changes: it is tried again many times a second."""
    again = not new.confirmed and old.failures > 0 and old.detail == new.detail
    level = logging.INFO if new.confirmed else logging.DEBUG if again else logging.WARNING
    fields = {"adapter": adapter, "prefix": publication.prefix, "serial": publication.serial, "took_ms": took_ms}
    message = "publication confirmed" if new.confirmed else "publication not confirmed"
    log.log(level, message, extra=fields | {"detail": new.detail})


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
