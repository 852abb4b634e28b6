"""A region without a node, in the story: begun as a tenant, filled, resolved, and gone to a node of its own.

Played when the outside clients have ended and changes rest, so that it takes nothing from what they measure. Its group is there
from the start; nothing is in it before.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hosting.tenant.edge_client import RegistrationClient
from hosting.tenant.edge_import import Import
from ops.demo.hosting_judge import NS_PER_MS, TELL_MIN, Deed, Did, HostingTold
from ops.demo.looking import Looking
from ops.demo.members import GUEST, GUEST_PREFIX, HOSTS, REGISTRAR
from ops.demo.stage import Stage
from replica.model.errors import Code, ZaibeiError

ROWS = 2_000
SOME, SOME_S_MAX = 2 * TELL_MIN, 10.0  # lookups before it leaves
NEW_EVERY_MS = 30
LEAVES_S_MAX = 40.0
EQUAL_S_MAX = 20.0
LAST_S_MAX = 20.0
WHY = "it has no node yet"

Note = Callable[..., None]
Zaibei = Callable[..., dict[str, Any]]  # a command as an operator types it at a member


class Hosting:
    """See the module. `told` is what it leaves."""

    def __init__(self, stage: Stage, looking: Looking, note: Note, zaibei: Zaibei) -> None:
        self._stage, self._look, self._note, self._zaibei = stage, looking, note, zaibei
        self.told = HostingTold()

    def play(self) -> None:
        """Raises ZaibeiError: something did not happen in its time."""
        self._stage.start(f"{GUEST}-follow", wait=False)  # its node, with an empty log; it prints nothing before its end
        self._create()
        self._fill()
        self._stage.start_client("guests", self._clients())
        self._look.until_seen(SOME_S_MAX, f"{GUEST} resolved", lambda: self._looked() >= SOME or None)
        self._leave()
        self._register_there()
        self._end()

    def _create(self) -> None:
        """What `zaibei tenant create` and `zaibei tenant set` call."""
        by, print_ = getpass.getuser(), self._stage.members.registrar.fingerprint
        right = {"who": print_, "operations": ["create", "modify", "read", "list"], "under": GUEST_PREFIX}
        with self._look.members.admin(self._look.leader(GUEST)) as admin:
            admin.tenant_run(GUEST, "create", by, WHY, "Islands", "public", "")
            admin.tenant_document(GUEST, "right", "registrar", right, by, WHY)
            admin.tenant_document(GUEST, "quota", "tenant", {"identifiers": 10 * ROWS}, by, WHY)
        self._note("act", f"{GUEST}, a region without a node, begins to live here: its rights and quota are in its own registry")

    def _fill(self) -> None:
        """What `zaibei tenant import` calls."""
        path = self._stage.folder / f"{GUEST}.csv"
        rows = [f"{GUEST_PREFIX}/HOUSE-{number},https://example.cn/house/{number}" for number in range(ROWS)]
        path.write_text("\n".join(["identifier,URL", *rows]) + "\n", encoding="utf-8")
        began_ns = time.monotonic_ns()
        done = asyncio.run(self._import(path))
        self.told.filled = done
        took_ms = (time.monotonic_ns() - began_ns) / NS_PER_MS
        self._note("act", f"filled: {done:,} identifiers by one import, in {took_ms:.0f} ms")
        if done != ROWS:
            raise ZaibeiError(Code.REFUSED, f"{ROWS - done} of {ROWS} rows were rejected, see {path.name}.rejected.jsonl")

    async def _import(self, path: Path) -> int:
        members = self._stage.members
        async with RegistrationClient(self._addresses(), members.registrar, [members.roots.read_bytes()]) as client:
            return (await Import(path, "csv", client, absent=True).run()).done

    def _addresses(self) -> list[str]:
        return [f"{host}:{self._stage.ports['registration']}" for host in HOSTS]

    def _clients(self) -> dict[str, Any]:
        stage = self._stage
        return {
            "name": REGISTRAR,
            "identity": str(stage.folder / REGISTRAR),
            "roots": stage.members.roots.read_text(encoding="ascii"),
            "addresses": self._addresses(),
            "hosts": list(HOSTS),
            "port": stage.ports["handle"],
            "prefix": GUEST_PREFIX,
            "filled": str(stage.folder / f"{GUEST}.csv"),
            "history": str(stage.folder / "guests.jsonl"),
            "every_ms": NEW_EVERY_MS,
        }

    def _looked(self) -> int:
        return sum(one.did is Did.LOOKUP for one in read_deeds(self._stage.folder / "guests.jsonl"))

    def _leave(self) -> None:
        leader = self._look.leader(GUEST)
        plan = self._zaibei(leader, "tenant", "graduate", GUEST)["plan"]
        began_ns = time.monotonic_ns()
        self._note("act", f"{GUEST} has built a node and leaves, while it is registered and resolved here", began_ns)
        timeout = ("--timeout", f"{LEAVES_S_MAX:.0f}")
        self._zaibei(leader, "tenant", "graduate", GUEST, "--plan", plan["token"], *timeout, limit_s=LEAVES_S_MAX + 10)
        ended_ns = time.monotonic_ns()
        self.told.left_ns = (began_ns, ended_ns)
        self._note("return", f"it registers at its own node, and we are its copy: {(ended_ns - began_ns) / 1e9:.1f} s", ended_ns)

    def _register_there(self) -> None:
        """The node goes on alone: with what it copied and a registration of its own, which comes to us as every source's does."""
        folder, follow = self._stage.folder, self._stage.children.pop(f"{GUEST}-follow")
        try:
            follow.process.wait(LEAVES_S_MAX)
        except subprocess.TimeoutExpired:
            follow.kill()
            raise ZaibeiError(Code.UNKNOWN, f"the node of {GUEST} did not end its copying", definite=False) from None
        own = {"handle": f"{GUEST_PREFIX}/OF-ITS-OWN", "values": [{"index": 1, "type": "URL", "data": "https://example.cn/own"}]}
        with (folder / f"{GUEST}-copied.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(own) + "\n")
        (folder / f"{GUEST}-copied.jsonl").replace(folder / f"{GUEST}.jsonl")
        self._stage.start(GUEST)
        expected = self._look.expected(GUEST)
        until, differing = time.monotonic() + EQUAL_S_MAX, "nothing was seen"
        while differing and time.monotonic() < until:
            held = self._look.digests().get(GUEST, {})
            same = len(held) == len(HOSTS) and {one[1:] for one in held.values()} == {expected}
            differing = "" if same else f"the members hold {held}, its node {expected}"
            time.sleep(0.1)
        self.told.digest_equal = not differing
        text = (
            f"{GUEST} differs: {differing}"
            if differing
            else f"it registered by itself; {expected[0]:,} records are equal there and at three members"
        )
        self._note("fault" if differing else "return", text)

    def _end(self) -> None:
        child = self._stage.children.pop("guests")
        child.process.terminate()
        try:
            self.told.whole = child.process.wait(LAST_S_MAX) == 0
        except subprocess.TimeoutExpired:
            child.end()
        self._stage.children.pop(GUEST).end()
        self.told.deeds = read_deeds(self._stage.folder / "guests.jsonl")
        lookups = self.told.of(Did.LOOKUP)
        failed = sum(not one.answered for one in lookups)
        acked = len(self.told.acked())
        self._note(
            "return",
            f"{GUEST}: {acked:,} more registered one by one, {len(lookups):,} lookups, {failed} without the right answer",
        )


def read_deeds(path: Path) -> list[Deed]:
    """A line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    octets = path.read_bytes()
    lines = [json.loads(line) for line in octets[: octets.rfind(b"\n") + 1].splitlines()]
    return [Deed(**{**line, "did": Did(line["did"])}) for line in lines]
