"""A stand-in secondary (or top-level) node: `python -m chaos.standin.secondary --config FILE`.

It answers Handle over UDP and TCP and JSON over HTTP from the files its agent publishes, and reads them again when they change.
Config (TOML): name, files = [...], prefixes = [...], and optionally hosts = ["127.0.0.1", "::1"], udp, tcp, http (ports; 0: any),
serial = 1, site_ttl_s = 300, tally (a file, see tally.py), second_site (hex, published behind its own).
When it serves, it prints one line of JSON: {"ready": true, "ports": {...}, "site": "hex"}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.standin.edge_serve import Ports, Standin, bind, serve
from chaos.standin.registry import FileReader, Registry
from chaos.standin.tally import Tally
from replica.agent.mapping import Naming
from replica.model.edge_collector import settle
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import Interface, InterfaceUse, Protocol, encode_site, site_of

RELOAD_S = 0.1  # between looks at the files


@dataclass(frozen=True, slots=True)
class SecondaryConfig:
    """See the module's text."""

    name: str
    files: tuple[Path, ...]
    prefixes: tuple[str, ...]
    hosts: tuple[str, ...] = ("127.0.0.1", "::1")
    ports: Ports = field(default_factory=Ports)
    serial: int = 1
    site_ttl_s: int = 300
    tally: Path | None = None
    second_site: bytes = b""

    @staticmethod
    def read(path: Path) -> SecondaryConfig:
        """Raises ZaibeiError(INVALID_CONFIG)."""
        try:
            fields: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
            return SecondaryConfig(
                str(fields["name"]),
                tuple(path.parent / str(file) for file in fields["files"]),
                tuple(map(str, fields["prefixes"])),
                tuple(map(str, fields.get("hosts", ("127.0.0.1", "::1")))),
                Ports(*(int(fields.get(name, 0)) for name in ("udp", "tcp", "http"))),
                int(fields.get("serial", 1)),
                int(fields.get("site_ttl_s", 300)),
                path.parent / str(fields["tally"]) if "tally" in fields else None,
                bytes.fromhex(str(fields.get("second_site", ""))),
            )
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ZaibeiError(Code.INVALID_CONFIG, f"{path}: {exc!r}") from exc


def own_site(hosts: tuple[str, ...], ports: Ports, serial: int, *, primary: bool, description: str) -> bytes:
    """HS_SITE data of a stand-in: TCP first, all addresses."""
    faces = [
        Interface(InterfaceUse.QUERY, protocol, port)
        for protocol, port in ((Protocol.TCP, ports.tcp), (Protocol.UDP, ports.udp), (Protocol.HTTP, ports.http))
    ]
    return encode_site(site_of(hosts, faces, serial=serial, primary=primary, description=description))


async def run(config: SecondaryConfig) -> None:
    """Serve until the process is ended."""
    naming = Naming.of(config.prefixes)
    ports, sockets = bind(config.hosts, config.ports)
    site = own_site(config.hosts, ports, config.serial, primary=True, description=config.name)
    registry = Registry.of(config.prefixes, site, config.site_ttl_s, len(config.files))
    readers = [FileReader(file, naming) for file in config.files]
    registry.second = config.second_site
    stamps: list[tuple[int, int] | None] = [None] * len(readers)
    await reload(registry, readers, stamps)
    tally = Tally(config.tally, registry.answer) if config.tally is not None else None
    await serve(Standin(registry.answer if tally is None else tally.answer, site), sockets)
    writing = asyncio.create_task(tally.write_for_ever()) if tally is not None else None
    print(json.dumps({"ready": True, "ports": ports.view(), "site": site.hex()}), flush=True)
    while writing is None or not writing.done():
        await asyncio.sleep(RELOAD_S)
        await reload(registry, readers, stamps)


async def reload(registry: Registry, readers: list[FileReader], stamps: list[tuple[int, int] | None]) -> None:
    """Read files whose size or time changed; one that is being replaced keeps its old content until it can be read."""
    for place, reader in enumerate(readers):
        try:
            found = reader.path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp != stamps[place]:
                registry.files[place] = await asyncio.to_thread(reader.read)
                stamps[place] = stamp
        except OSError:
            continue


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in secondary node.")
    parser.add_argument("--config", type=Path, required=True)
    try:
        settle()
        asyncio.run(run(SecondaryConfig.read(parser.parse_args().config)))
    except ZaibeiError as exc:
        sys.exit(f"secondary: {exc.trouble.message}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
