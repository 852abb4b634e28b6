"""The administrator of one tenant, and nobody, against the data of another over the JSON API."""

from __future__ import annotations

import pytest

from tests.unit.hostile.hostile_world import KEYS, SECRETS, A, B, C, Place, basic

VALUES = [{"index": 1, "type": "URL", "data": "http://mine"}]


@pytest.mark.parametrize("prefix", [B, C])
@pytest.mark.parametrize("why", ["own key", "their name, own secret", "nobody"])
async def test_json_with_another_identity_changes_nothing(prefix: str, why: str) -> None:
    place = Place()
    before = place.kept(A, B, C)
    credential = {
        "own key": basic(KEYS[A], SECRETS[A]),
        "their name, own secret": basic(KEYS[prefix], SECRETS[A]),
        "nobody": b"",
    }[why]
    told = []
    for name in ("DATA", "NONE"):
        for method in ("PUT", "DELETE"):
            status, said = await place.json(method, f"/api/handles/{prefix}/{name}", credential, VALUES)
            told.append((status, said["responseCode"], said.get("message")))
    listed, _ = await place.json("GET", f"/api/handles?prefix={prefix}", credential)
    assert len(set(told)) == 1 and told[0][0] in (401, 403) and listed in (401, 403)
    assert place.kept(A, B, C) == before
