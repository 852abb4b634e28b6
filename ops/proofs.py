"""What a running member proves on request: the state it serves, signed; part of its admin calls."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from replica.member.copy import SourceCopy
from replica.member.member import Member
from replica.model.edge_identity import Identity, sync_folder
from replica.model.errors import Code, ZaibeiError
from replica.model.serving_state import ServingState, write_state
from replica.store.edge_store import SourceStore


class MemberProofs:
    """Part of MemberCalls."""

    _member: Member

    def _copy_of(self, source: str) -> SourceCopy:
        copy = self._member.copies.get(source)
        if copy is None:
            known = ", ".join(sorted(self._member.copies)) or "none"
            raise ZaibeiError(Code.NOT_FOUND, f"{source!r} is not in service at this member (it serves: {known})")
        return copy

    async def serving_state(self, source: str, path: str) -> dict[str, Any]:
        copy = self._copy_of(source)
        identity, member = self._member.settings.identity, self._member.settings.name
        return await asyncio.to_thread(write_serving_state, copy.store, identity, member, Path(path))


def write_serving_state(store: SourceStore, identity: Identity, member: str, path: Path) -> dict[str, Any]:
    """Write what this store serves to a new file. Blocks; any thread.

    Raises:
        ZaibeiError(CONFLICT): the file is there already. Errors of the store and of the system.
    """
    if not path.is_absolute():
        raise ZaibeiError(Code.MALFORMED, f"{path}: name an absolute path: the member writes it, in its own folder")
    head, boundaries = store.boundaries()
    group = store.state()
    digest = store.digest_at(head)
    state = ServingState(
        store.source,
        member,
        head,
        {},
        time.time_ns() // 1_000_000,
        group.verified,
        0 if digest is None else digest.records,
        "" if digest is None else f"{digest.total:032x}",
    )
    mine = identity.latest()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ZaibeiError(Code.CONFLICT, f"{path} is there already: name another file") from None
    with os.fdopen(handle, "wb") as out:
        out.writelines(write_state(state, boundaries, mine.signer, mine.certificate_pem))
        out.flush()
        os.fsync(out.fileno())
    sync_folder(path.parent)
    return {"source": store.source, "path": str(path), "position": str(head), "boundaries": len(boundaries)}
