"""`python -m hosting.front CONFIG.json`: one front process. Prints one line of JSON with its addresses once it listens.

{"socket": "/run/zaibei/port", "udp": [["127.0.0.1", 2641]], "tcp": …, "http": …, "grpc": …, "reuse_port": true}
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from hosting.front.edge_front import Bound, FrontConfig
from hosting.front.edge_main import FrontProcess, run_front
from hosting.front.edge_port_client import PortClientSettings


class _File(msgspec.Struct, forbid_unknown_fields=True):
    socket: str
    udp: tuple[tuple[str, int], ...] = ()
    tcp: tuple[tuple[str, int], ...] = ()
    http: tuple[tuple[str, int], ...] = ()
    grpc: tuple[tuple[str, int], ...] = ()
    reuse_port: bool = False
    beat_silence_ms_max: int = 10


def _ready(bound: Bound) -> None:
    sys.stdout.write(msgspec.json.encode(bound).decode() + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    try:
        (name,) = arguments
        given = msgspec.json.decode(Path(name).read_bytes(), type=_File)
    except (ValueError, OSError) as exc:  # msgspec's faults are ValueErrors
        sys.stderr.write(f"usage: python -m hosting.front CONFIG.json: {exc}\n")
        return 2
    front = FrontConfig(given.udp, given.tcp, given.http, given.grpc, given.reuse_port)
    owner = PortClientSettings(Path(given.socket), beat_silence_ms_max=given.beat_silence_ms_max)
    try:
        run_front(FrontProcess(front, owner), _ready)
    except OSError as exc:
        sys.stderr.write(f"front: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
