"""What the administrators of a prefix's record (`0.NA/P`) may do to handles below it, by who keeps that record. Pure.

A prefix's record is kept by whoever owns the prefix above, who can name anybody in it. So it lends no more than this:

| kept by | the tenant has documents | it has none |
| --- | --- | --- |
| the tenant itself | all, as the handle's own HS_ADMIN values | the same |
| a node above | lists, and what the documents grant the caller | creating, lists; all else to keys the tenant itself keeps |
| another tenant that lives here | what the documents grant the caller | nothing |

Beside it counts what the handle's own HS_ADMIN values say: the tenant, or whom it let create, wrote those.
"""

from __future__ import annotations

from enum import Enum

from hosting.tenant.papers import Papers
from hosting.tenant.rights import Caller, Operation, granted
from replica.model.handle.codes import OpCode

_ASKS = {
    OpCode.CREATE_HANDLE: (Operation.CREATE, Operation.MODIFY),  # with OVERWRITE it replaces
    OpCode.DELETE_HANDLE: (Operation.DELETE,),
    OpCode.LIST_HANDLES: (Operation.LIST,),
    OpCode.RESOLUTION: (Operation.READ,),
}


class Keeper(Enum):
    """Who keeps a prefix's record, as seen from the tenant whose handles lie below it."""

    TENANT = "the tenant itself"
    NODE = "a node above"
    NEIGHBOUR = "another tenant that lives here"


def asks(op_code: int) -> tuple[Operation, ...]:
    """Operations of which a right to one lets a request be looked at."""
    return _ASKS.get(OpCode(op_code), (Operation.MODIFY,))


def lends(keeper: Keeper, op_code: int, caller: Caller, papers: Papers, prefix: bytes, *, own_key: bool, now_ms: int) -> bool:
    """Do the administrators of a prefix's record count for this?

    Args:
        caller: of whose key it is asked. papers: of the tenant whose handles lie below the prefix.
        prefix: key part. own_key: the tenant itself keeps the record of the caller's key.
        now_ms: Unix milliseconds.
    """
    if keeper is Keeper.TENANT:
        return True
    if keeper is Keeper.NODE and op_code == OpCode.LIST_HANDLES:
        return True
    if papers.tenant is not None or papers.damaged:
        return any(granted(caller, operation, prefix, papers, now_ms=now_ms) for operation in asks(op_code))
    return keeper is Keeper.NODE and (own_key or op_code == OpCode.CREATE_HANDLE)


def reads_hidden(caller: Caller, papers: Papers, prefix: bytes, *, own_key: bool, now_ms: int) -> bool:
    """May one whom HS_ADMIN values name read what the public may not?

    Where the tenant has documents, a key that is kept elsewhere needs its right to read, whatever a handle says: whoever keeps
    it, or the group in which it is named, can put another one there.
    """
    return own_key or papers.tenant is None or granted(caller, Operation.READ, prefix, papers, now_ms=now_ms)
