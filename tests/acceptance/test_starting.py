"""What keeps a member from starting: one clear message each, the documented exit code, nothing touched."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.cli.exits import Exit
from tests.acceptance.world import World, until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, takeover="never") as made:
        yield made


def refused(world: World) -> tuple[int, str]:
    """Start it; it must end by itself with one document and no traceback."""
    process = world.launch()
    out, _ = process.communicate(timeout=60)
    error = json.loads(out)["error"]
    assert out.count(b"\n") == 1 and "Traceback" not in world.said() and error["exit"] == process.returncode
    return process.returncode, error["message"]


def test_all_faults_of_a_file_at_once(world: World) -> None:
    text = world.toml.read_text()
    world.toml.write_text(text.replace("fronts =", "frnts =").replace("memory_mb = 64", 'memory_mb = "much"'))
    code, message = refused(world)
    assert (
        code == Exit.USAGE
        and "frnts" in message
        and "write 'fronts' (did you mean that?)" in message
        and "limits.memory_mb" in message
    )
    assert not (world.data / "stores").exists()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_ports_that_are_taken(world: World, family: int, host: str) -> None:
    with socket.socket(family) as feed, socket.socket(family, socket.SOCK_DGRAM) as handle:
        feed.bind((host, world.ports["feed"]))
        feed.listen()
        handle.bind((host, world.ports["handle"]))
        code, message = refused(world)
    assert code == Exit.CONFLICT and message.count("is in use") == 2
    assert f":{world.ports['feed']} (tcp)" in message and f":{world.ports['handle']} (udp)" in message
    world.start()  # and once they are free it starts


def test_a_second_process_on_the_folder(world: World) -> None:
    world.start()
    node = world.nodes[0].open()
    node.put(range(20))
    world.flowing()
    first = world.process
    assert first is not None
    code, message = refused(world)
    world.process = first
    assert code == Exit.CONFLICT and f"process {first.pid} already runs" in message and "zaibei stop" in message
    behind = node.put([20])
    until("the first one goes on", lambda: node.quorum_ns(behind) is not None)


def test_a_key_others_can_read(world: World) -> None:
    (world.data / "identity" / "signing.key").chmod(0o644)
    code, message = refused(world)
    assert code == Exit.NOT_AUTHORISED and "chmod 600" in message


def test_a_lineage_that_is_damaged(world: World) -> None:
    (world.data / "lineage").write_bytes(b"short")
    code, message = refused(world)
    assert code == Exit.VERIFICATION_FAILED and str(world.data / "lineage") in message and "restore it" in message


def test_fronts_need_real_ports_and_a_short_folder(world: World) -> None:
    world.configure(fronts=1)
    text = world.toml.read_text()
    world.toml.write_text(text.replace(f"127.0.0.1:{world.ports['http']}", "127.0.0.1:0"))
    code, message = refused(world)
    assert code == Exit.USAGE and "give [listen] handle, http, https and grpc real ports" in message
    world.toml.write_text(text.replace(str(world.data), str(world.folder / ("long" * 30))))
    code, message = refused(world)
    assert code == Exit.USAGE and "name a shorter folder" in message
    assert world.front_pids() == []
