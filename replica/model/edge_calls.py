"""A call whose gRPC channel is closed under it ends like a cancelled task: what that is to its caller."""

from __future__ import annotations

import asyncio

from replica.model.errors import Code, ZaibeiError


def channel_closed(whom: str, code: Code = Code.UNREACHABLE) -> BaseException:
    """To be raised where a call raised a CancelledError or UsageError: only a task that is cancelled itself goes on so.

    A task that ended as if cancelled is told to nobody, so what it had to do would be left undone for good.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return ZaibeiError(code, f"{whom}: the connection was closed on our side", definite=False, retry=True)
