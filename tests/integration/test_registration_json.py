"""Registration over the JSON API in a running member with its real journal and store: who asks, what is answered, what stays."""

from __future__ import annotations

import json
from pathlib import Path

from hosting.front.edge_front import Front, FrontConfig
from hosting.front.service import FrontService
from ops.registering import registrar_of
from ops.up import MemberPort
from replica.model.handle.values import HandleValue
from replica.model.precondition import ABSENT
from tests.integration.tenant_world import PREFIX, Region, region
from tests.unit.front.world import ask_http
from tests.unit.handle.test_json_writes import basic
from tests.unit.handle.test_registrar import KEY, SECRETS, admin

NAME = f"{PREFIX}/A"


async def ask(here: Region, method: str, target: str, body: object = None) -> tuple[int, int]:
    """(status, response code) of one request to a front of its own, with the key's secret."""
    port = MemberPort()
    port.member = here.member
    port.registrar = registrar_of(here.port.offices, port)
    front = Front(port, FrontConfig(http=(("127.0.0.1", 0),)), FrontService(port, registrar=lambda: port.registrar))
    bound = await front.start()
    try:
        kind = f"application/json\r\nAuthorization: {basic().decode()}"
        status, _, said = await ask_http(bound.http[0], target, method, json.dumps(body).encode(), kind)
        return status, json.loads(said)["responseCode"]
    finally:
        await front.stop()


async def test_what_is_registered_over_json_survives(tmp_path: Path) -> None:
    one, two = f"/api/handles/{NAME}?index=1", {"index": 1, "type": "URL", "data": "http://b"}
    async with region(tmp_path) as here, here.client() as client:
        key = HandleValue(KEY.index, b"HS_SECKEY", SECRETS[KEY], permissions=0x0C)
        assert (await client.put(KEY.handle.decode(), [admin(), key], ABSENT)).ok
        assert (await client.put(NAME, [HandleValue(1, b"URL", b"http://a"), admin()], ABSENT)).ok
        assert await ask(here, "PUT", one + "&overwrite=false", two) == (409, 201)
        assert await ask(here, "PUT", one, two) == (200, 1)
        for unknown in (f"/api/handles/{PREFIX}/NONE?index=1", "/api/handles/88.118.7/FOREIGN?index=1"):
            assert await ask(here, "PUT", unknown, two) == (500, 2), "nobody here vouches for the record of its prefix"
    async with region(tmp_path) as here, here.client() as client:
        [found] = await client.get([NAME])
        assert [value.data for value in found.values if value.index == 1] == [b"http://b"]
        assert await ask(here, "DELETE", f"/api/handles/{NAME}") == (200, 1)
        [found] = await client.get([NAME])
        assert not found.found
