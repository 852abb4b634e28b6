"""What a registration says in the audit: nothing, unless it changes documents about a tenant: rights, limits, suspension.

Such documents are of kinds `hosting.…` (hosting/tenant/papers.py) and name in `by` and `why` who wrote them and for what reason.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from replica import native
from replica.model.batch import open_batch
from replica.model.errors import ZaibeiError
from replica.model.identifier import DOCUMENT, key_text

TENANTS = DOCUMENT + b"hosting."  # how keys of documents about tenants begin
SHOWN_MAX = 16  # documents of one record; what is more is counted


class _Said(msgspec.Struct):
    by: str = ""
    why: str = ""


_SAID = msgspec.json.Decoder(_Said)


def documents_in(body: Any) -> tuple[str, tuple[str, ...], str, dict[str, Any]] | None:
    """What, who, why and evidence of a registration's entry; None: it changes no document about a tenant.

    Whatever its octets are, it raises nothing: the entry comes again at each start.
    """
    if TENANTS not in body.batch:  # nearly all of them: found out without taking the batch apart
        return None
    try:
        keys, values, _ = native.split(open_batch(body.batch, verify=False).columns)
    except (ZaibeiError, native.ColumnsFault):
        return None
    changed = [(key_text(key), value) for key, value in zip(keys, values, strict=True) if key.startswith(TENANTS)]
    if not changed:
        return None
    said = [_said(value) for _, value in changed if value]
    shown = {name: sha256(value).hexdigest() if value else "removed" for name, value in changed[:SHOWN_MAX]}
    names = [name.removeprefix("document hosting.") for name, _ in changed]
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    who = tuple(sorted({one.by for one in said if one.by})[:SHOWN_MAX])
    why = "; ".join(sorted({one.why for one in said if one.why})[:SHOWN_MAX])
    return f"the tenant's documents are changed: {', '.join(names[:SHOWN_MAX])}{more}", who, why, {"documents": shown}


def _said(value: bytes) -> _Said:
    try:
        return _SAID.decode(value[1:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Said()
