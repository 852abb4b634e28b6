"""The stage on which registrations may be taken over: two operators with keys, a registrar, a top-level node that signs orders.

Operators' own commands are run as processes, as people run them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chaos.scenarios.scenario import Fence, Plant, Scenario
from ops.admin.edge_client import AdminClient
from ops.demo.stage import free_port
from ops.drills.edge_stage_files import HOST
from ops.drills.stage import Stage
from ops.operators import edge_keys
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import OrderKind
from replica.model.signing import Signer
from replica.takeover.orders import sign
from replica.v1 import entry_pb2

PEOPLE = ("li.wei", "wang.fang")
REGISTRAR, TOP_LEVEL = "tenant-a", "beijing"
COMMAND_S_MAX = 90.0
COMMANDS_NICE = "10"  # starting a command costs a second of a core: the clients' process goes first
UNAVAILABLE_S = 10  # the shortest that a configuration allows
ORDER_MS = 600_000
PLAN_AGAIN_S = 0.1


class RegisteringStage(Stage):
    """See the module."""

    def __init__(self, folder: Path, scenario: Scenario, seed: int, plant: Plant | None) -> None:
        super().__init__(folder, scenario, seed, plant)
        self.ports["registration"] = free_port()
        self._top_level = Signer(Ed25519PrivateKey.generate())
        self._orders = 0

    def _member(self) -> list[str]:
        lines = super()._member()
        lines.insert(lines.index("[listen]") + 1, f'registration = ["{HOST}:{self.ports["registration"]}"]')
        return lines + self.people()

    def people(self) -> list[str]:
        """Whose signatures count, for a member's file; their keys are made here."""
        lines = list[str]()
        for name in PEOPLE:
            public = edge_keys.create(self.folder / f"{name}{edge_keys.SUFFIX}").public.hex()
            lines += ["[[operator]]", f'name = "{name}"', f'public_key = "{public}"']
        return [*lines, "[[top_level]]", f'name = "{TOP_LEVEL}"', f'public_key = "{self._top_level.public.hex()}"']

    def admin(self) -> AdminClient:
        """Of the member that leads."""
        return AdminClient(self.folder / "member" / "admin.sock")

    def publisher(self, source: str) -> str:
        part, file = super().publisher(source), self.folder / f"{source}.toml"
        fence = "none" if self.scenario.fence is Fence.NONE else "write-path"
        file.write_text(file.read_text("utf-8").replace("[source]", f'[source]\nfence = "{fence}"', 1), encoding="utf-8")
        registrar = ensure_identity(self.folder / REGISTRAR, REGISTRAR)
        pin = "".join(registrar.certificate_pem.decode().splitlines()[1:-1])
        probe = f'{{ protocol = "tcp", address = "{HOST}", port = {self.ports["probe"]} }}'
        return "\n".join(
            [
                part, f"unavailable_s = {UNAVAILABLE_S}", f"registration_probes = [{probe}]",
                f'registrars = [{{ name = "{REGISTRAR}", fingerprint = "{registrar.fingerprint}", certificate = "{pin}" }}]',
            ]
        )  # fmt: skip

    def _nodes(self, second_site: str, child: str = "nodes") -> dict[str, Any]:
        return {**super()._nodes(second_site, child), "guarded": self.scenario.fence is Fence.WRITE_PATH}

    # ------------------------------------------------------------------------------------------------------- commands

    def member_words(self) -> list[str]:
        return ["--config", str(self.folder / "member.toml")]

    def register_words(self) -> list[str]:
        certificate = self.folder / "member" / "identity" / "certificate.pem"
        server = f"{HOST}:{self.ports['registration']}"
        return ["--server", server, "--identity", str(self.folder / REGISTRAR), "--member-file", str(certificate)]

    async def zaibei(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run one command; its exit code and its JSON document. Raises ZaibeiError(UNREACHABLE): no end, or no document."""
        process = await asyncio.create_subprocess_exec(
            "nice", "-n", COMMANDS_NICE, sys.executable, "-m", "ops.cli.main", *words, "--json", cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(COMMAND_S_MAX):
                said, errors = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        told = said.decode("utf-8", "replace").strip()
        (self.folder / "commands.log").open("a", encoding="utf-8").write(f"{words} -> {process.returncode}\n{told[:2_000]}\n")
        try:
            return process.returncode or 0, json.loads(told) if told else {}
        except ValueError:
            tail = errors.decode("utf-8", "replace")[-400:]
            raise ZaibeiError(Code.UNREACHABLE, f"zaibei {' '.join(words[:3])} said no JSON: {told[:200]} {tail}") from None

    async def signed(self, source: str, *options: str, patience_s: float = 0.0) -> str:
        """Plan a takeover of registrations and sign it as two people do; its token.

        Args:
            options: of the plan, `--registration` or `--switchover` among them.
            patience_s: a plan that is refused is looked at again for so long: a late probe makes a node a suspect for a moment.
        Raises:
            ZaibeiError(REFUSED): it was not planned.
        """
        member, until = self.member_words(), time.monotonic() + patience_s
        code, told = await self.zaibei("takeover", "plan", source, *options, *member)
        while code and time.monotonic() < until:
            await asyncio.sleep(PLAN_AGAIN_S)
            code, told = await self.zaibei("takeover", "plan", source, *options, *member)
        if code:
            raise ZaibeiError(Code.REFUSED, f"the takeover was not planned ({' '.join(options)}): {told}")
        token = str(told["token"])
        for name in PEOPLE:
            key = str(self.folder / f"{name}{edge_keys.SUFFIX}")
            await self.zaibei("takeover", "sign", token, "--key", key, "--yes", *member)
        return token

    async def run_signed(self, source: str, token: str, reason: str) -> tuple[int, dict[str, Any]]:
        """Run what was signed; its exit code and what it said."""
        words = ["takeover", "run", source, "--registration", "--plan", token, "--reason", reason]
        return await self.zaibei(*words, *self.member_words())

    async def failback(self, source: str) -> dict[str, Any]:
        """How a source stands on its way back. Raises ZaibeiError(UNREACHABLE)."""

        def look() -> dict[str, Any]:
            with self.admin() as admin:
                return admin.failback_status(source)[0]

        return await asyncio.to_thread(look)

    async def ladder(self, source: str) -> dict[str, Any]:
        """How a source's ladder stands, what alarms say, and where our site was published. Raises ZaibeiError(UNREACHABLE)."""

        def look() -> dict[str, Any]:
            with self.admin() as admin:
                row = dict(admin.takeover_status(source)[0])
                return {**row["ladder"], "alarms": list(row["alarms"]), "publications": list(row["publications"])}

        return await asyncio.to_thread(look)

    def order(self, source: str, kind: OrderKind, findings: entry_pb2.Findings | None = None) -> str:
        """A signed order of the top-level node about registrations, in a file."""
        self._orders += 1
        now_ms = time.time_ns() // 1_000_000
        made = entry_pb2.Order(
            kind=entry_pb2.Order.Kind.ValueType(int(kind)), number=self._orders, source=source,
            function=entry_pb2.FUNCTION_REGISTRATION, issued_ms=now_ms, until_ms=now_ms + ORDER_MS, findings=findings,
        )  # fmt: skip
        path = self.folder / f"order-{self._orders}.bin"
        path.write_bytes(sign(made, self._top_level).SerializeToString())
        return str(path)
