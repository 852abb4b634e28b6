"""`python -m hosting.front CONFIG.json`: one front process. Prints one line of JSON with its addresses once it listens.

{"socket": "/run/zaibei/port", "udp": [["127.0.0.1", 2641]], "tcp": …, "http": …, "grpc": …, "reuse_port": true, "lock": "0.lock"}

`https`: as http, over TLS, with `tls`: {"certificate", "key", "clients"}, PEM files.
`site_key`: file of the key with which answers are signed, and a mark of the key: with another one, another front is started.
`metrics`: addresses of its Prometheus metrics. `lock`: a file this process keeps locked as long as it lives, with its number in
it; when another one has it, it ends at once.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

import msgspec

from hosting.front.edge_front import Bound, FrontConfig
from hosting.front.edge_main import FrontProcess, run_front
from hosting.front.edge_port_client import PortClientSettings
from hosting.front.edge_tls import TlsFiles
from hosting.guard.edge_teller import Place, places_of
from hosting.guard.edge_webhook import WebhookPlace
from hosting.guard.limits import GuardLimits
from replica.model.errors import ZaibeiError

LOCK_TRIES_MAX = 20
LOCK_AGAIN_S = 0.02


class _Security(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where events go; `webhook`: url, file of the secret, file of the CA or empty."""

    member: str = "front"
    syslog: tuple[str, ...] = ()
    webhook: tuple[str, str, str] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    socket: str
    udp: tuple[tuple[str, int], ...] = ()
    tcp: tuple[tuple[str, int], ...] = ()
    http: tuple[tuple[str, int], ...] = ()
    grpc: tuple[tuple[str, int], ...] = ()
    https: tuple[tuple[str, int], ...] = ()
    tls: TlsFiles | None = None
    reuse_port: bool = False
    beat_silence_ms_max: int = 50
    lock: str = ""
    metrics: tuple[tuple[str, int], ...] = ()
    guard: GuardLimits = GuardLimits()
    site_key: tuple[str, str] = ("", "")
    security: _Security = _Security()


def _places(given: _Security) -> list[Place]:
    hook = None
    if given.webhook is not None:
        url, secret, ca = given.webhook
        hook = WebhookPlace(url, Path(secret), Path(ca) if ca else None)
    return places_of(given.syslog, hook)


def _take(path: Path) -> bool:
    """Lock the file until this process ends; False: another front has it. (Who merely looks holds it for an instant.)"""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # never closed
    for _ in range(LOCK_TRIES_MAX):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_AGAIN_S)
        else:
            os.ftruncate(handle, 0)
            os.pwrite(handle, msgspec.json.encode({"pid": os.getpid()}), 0)
            return True
    return False


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
    if given.lock and not _take(Path(given.lock)):
        return 0  # it goes on
    places = (given.udp, given.tcp, given.http, given.grpc, given.https, given.tls)
    front = FrontConfig(*places, given.reuse_port, guard=given.guard, site_key=given.site_key[0])
    owner = PortClientSettings(Path(given.socket), beat_silence_ms_max=given.beat_silence_ms_max)
    try:
        run_front(FrontProcess(front, owner, given.metrics, given.security.member, _places(given.security)), _ready)
    except (OSError, ZaibeiError) as exc:
        sys.stderr.write(f"front: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
