"""What several files of this folder are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from replica.model.edge_identity import ensure_identity
from replica.model.identity import Peer
from tests.unit.handle.test_registrar import SECRETS as SESSION_SECRETS
from tests.unit.hostile.hostile_world import KEYS, NAMES, SECRETS


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix, key in KEYS.items():
        monkeypatch.setitem(SESSION_SECRETS, key, SECRETS[prefix])


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Peer]:
    folder: Path = tmp_path_factory.mktemp("peers")
    return {
        prefix: Peer(source, ensure_identity(folder / source, source).certificate_pem, role="registrar")
        for prefix, source in NAMES.items()
    }
