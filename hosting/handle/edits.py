"""From an operation and the record that is there to the record that shall be, and the permissions this needs. Pure.

| operation | there must be | needs, by HS_ADMIN | else |
| --- | --- | --- | --- |
| create | no record; with OVERWRITE any | add handle, of the prefix; and delete handle, where one is replaced | 101 |
| delete | the record | delete handle | 100 |
| add values | the record, none of the indexes; with OVERWRITE any | add value; modify value, where one is replaced | 100, 201 |
| modify values | the record, all of the indexes | modify value | 100, 200 |
| remove values | the record, all of the indexes | remove value | 100, 200 |

For HS_ADMIN values the permissions are add, modify and remove admin. A value without a write bit is never changed (401). A record
keeps an HS_ADMIN value, or nobody could change it again (202). Times of changed values are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hosting.handle.permits import HS_ADMIN, is_kind
from replica.model.handle.bodies import HandleRequest, IndexesRequest, Request, ValuesRequest
from replica.model.handle.codes import VALUES_MAX, OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.types import AdminPermission, decode_admin
from replica.model.handle.values import HandleValue, Permission

WRITABLE = Permission.ADMIN_WRITE


@dataclass(frozen=True, slots=True)
class Edit:
    """What shall be.

    Args:
        values: of the record; None: no record.
        needs: AdminPermission bits over the record itself (its own administrators or its prefix's).
        prefix_needs: AdminPermission bits over the prefix.
        replaces: it puts something in the place of what is there.
    """

    values: tuple[HandleValue, ...] | None
    needs: int = 0
    prefix_needs: int = 0
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Denied:
    """Why there is no edit: a response code and a text."""

    code: ResponseCode
    text: str


def edit_of(
    op_code: int,
    request: Request,
    record: Sequence[HandleValue] | None,
    *,
    flags: int = 0,
    now_s: int = 0,
    is_prefix: bool = False,
) -> Edit | Denied:
    """The edit a request asks for.

    Args:
        record: values that are there; None: no record.
        flags: OpFlag bits of the request.
        is_prefix: the handle is a prefix's own record (`0.NA/…`).
    """
    overwrite = bool(flags & OpFlag.OVERWRITE)
    if op_code == OpCode.CREATE_HANDLE and isinstance(request, ValuesRequest):
        return _create(request.values, record, overwrite, now_s, is_prefix)
    if record is None:
        return Denied(ResponseCode.HANDLE_NOT_FOUND, "there is no such handle")
    if op_code == OpCode.DELETE_HANDLE and isinstance(request, HandleRequest):
        return Edit(None, AdminPermission.DELETE_DERIVED_PREFIX if is_prefix else AdminPermission.DELETE_HANDLE)
    if op_code == OpCode.ADD_VALUE and isinstance(request, ValuesRequest):
        return _put(request.values, record, now_s, may_add=True, may_replace=overwrite)
    if op_code == OpCode.MODIFY_VALUE and isinstance(request, ValuesRequest):
        return _put(request.values, record, now_s, may_add=False, may_replace=True)
    if op_code == OpCode.REMOVE_VALUE and isinstance(request, IndexesRequest):
        return _remove(request.indexes, record)
    return Denied(ResponseCode.OPERATION_NOT_SUPPORTED, f"operation {op_code} changes no record here")


def _create(
    values: Sequence[HandleValue], record: Sequence[HandleValue] | None, overwrite: bool, now_s: int, is_prefix: bool
) -> Edit | Denied:
    if record is not None and not overwrite:
        return Denied(ResponseCode.HANDLE_ALREADY_EXISTS, "there is such a handle already")
    denied = _unfit(values) or _immutable(record or ())
    if denied is not None:
        return denied
    adds = AdminPermission.ADD_DERIVED_PREFIX if is_prefix else AdminPermission.ADD_HANDLE
    deletes = AdminPermission.DELETE_DERIVED_PREFIX if is_prefix else AdminPermission.DELETE_HANDLE
    made = [replace(value, timestamp=now_s) for value in values]
    return _kept(made, 0 if record is None else deletes, adds, replaces=record is not None)


def _put(
    values: Sequence[HandleValue], record: Sequence[HandleValue], now_s: int, *, may_add: bool, may_replace: bool
) -> Edit | Denied:
    if not values:
        return Denied(ResponseCode.INVALID_VALUE, "no value was sent")
    if (denied := _unfit(values)) is not None:
        return denied
    made, needs, replaces = {value.index: value for value in record}, 0, False
    for value in values:
        old = made.get(value.index)
        if old is None and not may_add:
            return Denied(ResponseCode.VALUES_NOT_FOUND, f"there is no value {value.index}")
        if old is not None and not may_replace:
            return Denied(ResponseCode.VALUE_ALREADY_EXISTS, f"there is a value {value.index} already")
        if old is not None and (denied := _immutable((old,))) is not None:
            return denied
        needs, replaces = needs | _needs(old, value), replaces or old is not None
        made[value.index] = replace(value, timestamp=now_s)
    return _kept(made.values(), needs, 0, replaces=replaces)


def _remove(indexes: Sequence[int], record: Sequence[HandleValue]) -> Edit | Denied:
    if not indexes:
        return Denied(ResponseCode.INVALID_VALUE, "no index was sent")
    made, needs = {value.index: value for value in record}, 0
    for index in dict.fromkeys(indexes):
        old = made.pop(index, None)
        if old is None:
            return Denied(ResponseCode.VALUES_NOT_FOUND, f"there is no value {index}")
        if (denied := _immutable((old,))) is not None:
            return denied
        needs |= _needs(old, None)
    return _kept(made.values(), needs, 0)


def _needs(old: HandleValue | None, new: HandleValue | None) -> int:
    """Permissions for one value to become another; None: it is not there before, or after."""
    was_admin = old is not None and is_kind(old, HS_ADMIN)
    is_admin = new is not None and is_kind(new, HS_ADMIN)
    if old is None:
        return AdminPermission.ADD_ADMIN if is_admin else AdminPermission.ADD_VALUE
    if new is None:
        return AdminPermission.REMOVE_ADMIN if was_admin else AdminPermission.REMOVE_VALUE
    if was_admin and is_admin:
        return AdminPermission.MODIFY_ADMIN
    if was_admin:
        return AdminPermission.REMOVE_ADMIN | AdminPermission.MODIFY_VALUE
    return AdminPermission.MODIFY_VALUE | (AdminPermission.ADD_ADMIN if is_admin else 0)


def _unfit(values: Iterable[HandleValue]) -> Denied | None:
    seen = set()
    for value in values:
        if value.index in seen or not value.index:
            return Denied(ResponseCode.INVALID_VALUE, f"index {value.index} comes twice, or is 0")
        seen.add(value.index)
        if is_kind(value, HS_ADMIN):
            try:
                decode_admin(value.data)
            except ProtocolFault as fault:
                return Denied(ResponseCode.INVALID_VALUE, f"value {value.index} is no administrator: {fault.detail}")
    return None


def _immutable(values: Iterable[HandleValue]) -> Denied | None:
    for value in values:
        if not value.permissions & WRITABLE:
            return Denied(ResponseCode.INSUFFICIENT_PERMISSIONS, f"value {value.index} may not be changed by its administrators")
    return None


def _kept(values: Iterable[HandleValue], needs: int, prefix_needs: int, *, replaces: bool = False) -> Edit | Denied:
    made = tuple(sorted(values, key=lambda value: value.index))
    if not any(is_kind(value, HS_ADMIN) for value in made):
        return Denied(ResponseCode.INVALID_VALUE, "a handle keeps an HS_ADMIN value, or nobody could change it again")
    if len(made) > VALUES_MAX:
        return Denied(ResponseCode.INVALID_VALUE, f"a handle has at most {VALUES_MAX} values")
    return Edit(made, needs, prefix_needs, replaces)
