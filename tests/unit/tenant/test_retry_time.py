"""When a limit has room again is said in the refusal, and a client waits so long, or does not wait at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from hosting.tenant.admitting import over_count, over_rate
from hosting.tenant.edge_client import RegistrationClient, _trouble
from hosting.tenant.edge_service import REFUSAL_KEY, refusal_of
from hosting.tenant.rights import Refusal
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, Trouble
from replica.model.handle.values import HandleValue

PATIENCE_S = 0.9


@pytest.mark.parametrize(
    ("refusal", "retry", "after_ms"),
    [
        (over_rate(5, 180), True, 180),
        (over_rate(0, None), False, 0),
        (over_count(10, 9, 1), True, 1_000),
        (over_count(10, 10, 0), False, 0),
    ],
)
def test_the_time_travels_from_the_limit_to_the_caller(refusal: Refusal | None, retry: bool, after_ms: int) -> None:
    assert refusal is not None
    told = refusal_of(refusal.error.trouble, None)
    assert (told.code, told.retry, told.retry_after_ms) == ("over_quota", retry, after_ms)
    heard = _trouble(told)
    assert heard == refusal.trouble and heard.retry_ms == after_ms


class Refused(RegistrationClient):
    """Every call is refused; counted."""

    def __init__(self, folder: Path, trouble: Trouble) -> None:
        identity = ensure_identity(folder, "tenant-9")
        super().__init__(["member:1"], identity, [identity.certificate_pem], patience_s=PATIENCE_S)
        self.asked, self._octets = 0, refusal_of(trouble, None).SerializeToString()

    async def _connected(self, end: float) -> str:
        return "member:1"

    def _stub(self, address: str) -> Any:
        return self

    async def Put(self, *_: object, **__: object) -> None:
        self.asked += 1
        metadata = grpc.aio.Metadata((REFUSAL_KEY, self._octets))
        raise grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), metadata)


@pytest.mark.parametrize(("after_ms", "asked_max"), [(250, 4), (60_000, 1)])
async def test_a_client_asks_again_when_there_is_room_and_not_before(tmp_path: Path, after_ms: int, asked_max: int) -> None:
    client = Refused(tmp_path, Trouble(Code.OVER_QUOTA, "used up", retry=True, retry_ms=after_ms))
    done = await client.put("88.118.9/a", [HandleValue(1, b"URL", b"x")])
    assert done.ok is False and done.trouble is not None and done.trouble.retry_ms == after_ms
    assert 1 <= client.asked <= asked_max
