"""A member with the real shell and a composition of memory twins: `zaibei up` as a process, for tests of the shell.

python ops_standin.py MODE DATA     MODE: serve | fail | stuck | ends
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ops.admin.edge_server import AdminServer
from ops.cli.style import Console, guarded
from ops.cli.up import run_member
from ops.config import MemberConfig, load_config
from ops.metrics import MetricsServer
from ops.seat import Seat
from replica.model.edge_identity import Identity
from replica.model.errors import Code, ZaibeiError
from tests.unit.ops.support import member


async def serve(config: MemberConfig, identity: Identity, seat: Seat) -> None:
    calls = member({})
    calls.stopping = seat.stop.set
    admin, metrics = AdminServer(config.member.admin_socket, calls), MetricsServer(seat.registry, config.listen.metrics)
    await admin.start()
    seat.ready({"metrics": await metrics.start(), "handle": config.listen.handle})
    await seat.stop.wait()
    await metrics.stop()
    await admin.stop()


async def fail(config: MemberConfig, identity: Identity, seat: Seat) -> None:
    raise ZaibeiError(Code.DAMAGED, "store of node-a is damaged at 000012.sst. Next: zaibei source reseed node-a")


async def stuck(config: MemberConfig, identity: Identity, seat: Seat) -> None:
    seat.ready({})
    await asyncio.Event().wait()


async def ends(config: MemberConfig, identity: Identity, seat: Seat) -> None:
    seat.ready({})


def main(mode: str, data: str, *flags: str) -> int:
    found = load_config(Path(data) / "m.toml", data=Path(data) / "data")
    run = {"serve": serve, "fail": fail, "stuck": stuck, "ends": ends}[mode]
    as_json = "--json" in flags
    return guarded(lambda: run_member(Console(as_json), found, found.config.member.log, run), as_json)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
