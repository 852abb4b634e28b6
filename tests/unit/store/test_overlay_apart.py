"""An overlay stands beside the copied content, never in it (SEMANTICS 7)."""

from __future__ import annotations

from replica.v1 import entry_pb2
from tests.unit.store.conftest import World
from tests.unit.store.support import held, put


def test_an_overlay_changes_neither_content_nor_digest(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1), put(2)]))
    content, digest = held(granted.store), granted.source.digest()
    overlay = entry_pb2.Overlay(prefix="88.118", sites=[b"ours"], serial=5, act="act-1")
    granted.group.apply(entry_pb2.Entry(overlay=overlay))
    assert granted.store.state().overlays
    assert held(granted.store) == content == granted.source.content
    assert granted.store.digest_at(granted.source.head) == digest
    assert granted.group.check(digest).detail == "equal", "the copy still equals its source while it is taken over"
    granted.group.append(granted.source.cut([put(3)]))
    assert granted.group.check(granted.source.digest()).detail == "equal"
