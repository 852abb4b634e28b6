"""Reads the configuration file, and what the check must know of this machine."""

from __future__ import annotations

import os
import re
import socket
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ops.config.check import Surroundings, check
from ops.config.faults import ConfigError, Fault
from ops.config.read import WrongError
from ops.config.schema import SECTIONS
from ops.config.values import MemberConfig
from replica.model.errors import Code, ZaibeiError

CONFIG_VARIABLE = "ZAIBEI_CONFIG"
CONFIG_FILE = "zaibei.toml"
CONFIG_OCTETS_MAX = 4 * 1024 * 1024
SIDE_FILE_OCTETS_MAX = 16 * 1024 * 1024  # the revocation list of a large CA
EMBEDDED = "embedded defaults"
SOURCES_FOLDER = "sources.d"
SOURCE_PATH = re.compile(r"source\[(\d+)\]")
DATA_DEFAULT = str(SECTIONS["member"].key("data").default)  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True)
class Effective:
    """A configuration in force, where it comes from (a file or EMBEDDED), and the origin of every value by path."""

    config: MemberConfig
    origin: str
    origins: Mapping[str, str]


def load_config(path: Path | None = None, *, data: Path | None = None, environment: Mapping[str, str] | None = None) -> Effective:
    """The configuration in force: `path`, else $ZAIBEI_CONFIG, else ./zaibei.toml where it exists, else embedded defaults.

    Args:
        path: the file, as given by --config.
        data: overrides member.data, as given by --data; relative to the current folder.
        environment: os.environ where None.
    Raises:
        ConfigError: all faults of the file at once.
        ZaibeiError(NOT_FOUND): the named file is not there; ZaibeiError(NOT_AUTHORISED): it may not be read.
    """
    file = find(path, os.environ if environment is None else environment)
    root = {} if file is None else parse(file)
    origin = EMBEDDED if file is None else str(file)
    member = root.get("member", {})
    if data is not None and isinstance(member, dict):
        root["member"] = {**member, "data": str(data.absolute())}
    folder = Path.cwd() if file is None else file.absolute().parent
    enrolled = _add_enrolled(root, folder)
    try:
        config, origins = check(root, origin, surroundings(folder))
    except ConfigError as exc:
        raise ConfigError(exc.origin, tuple(replace(fault, path=_where(fault.path, enrolled)) for fault in exc.faults)) from None
    if data is not None:
        origins["member.data"] = "--data"
    return Effective(config, origin, origins)


def enrolled_folder(data: Path) -> Path:
    """Where each source that came in by a token has its own [[source]] block."""
    return data / SOURCES_FOLDER


def _where(path: str, enrolled: Mapping[int, tuple[Path, int]]) -> str:
    """Where a value stands: `source[3].prefixes` may stand in the file of an enrolled source, as its first block."""
    at = SOURCE_PATH.match(path)
    if at is None or int(at[1]) not in enrolled:
        return path
    file, place = enrolled[int(at[1])]
    return f"{file}: source[{place}]{path[at.end() :]}"


def _add_enrolled(root: dict[str, object], folder: Path) -> dict[int, tuple[Path, int]]:
    """Blocks of enrolled sources count as if they stood in the file, after those that do.

    Returns:
        Number of such a block among all -> its file, and its number there; both count from 1.
    """
    member, written = root.get("member", {}), root.get("source", [])
    data = member.get("data", DATA_DEFAULT) if isinstance(member, dict) else DATA_DEFAULT
    if not isinstance(data, str) or not isinstance(written, list):
        return {}  # told by the check
    added: list[object] = []
    places: dict[int, tuple[Path, int]] = {}
    for file in sorted(enrolled_folder(folder / data).glob("*.toml")):
        found = parse(file).get("source", [])
        for place, block in enumerate(found if isinstance(found, list) else [found], 1):
            added.append(block)
            places[len(written) + len(added)] = file, place
    if added:
        root["source"] = [*written, *added]
    return places


def find(path: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Which file counts; None: none."""
    if path is not None:
        return path
    if environment.get(CONFIG_VARIABLE):
        return Path(environment[CONFIG_VARIABLE])
    return Path(CONFIG_FILE) if Path(CONFIG_FILE).exists() else None


def parse(file: Path) -> dict[str, object]:
    """The file as tables. Raises as load_config does."""
    try:
        if file.stat().st_size > CONFIG_OCTETS_MAX:
            raise ConfigError(str(file), (Fault("file", f"is over {CONFIG_OCTETS_MAX} octets", "a TOML file"),))
        return tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        raise ZaibeiError(
            Code.NOT_FOUND,
            f"{file} does not exist. Next: `zaibei config example > {file}` and edit it, or leave --config out for defaults",
        ) from None
    except PermissionError:
        raise ZaibeiError(Code.NOT_AUTHORISED, f"{file} may not be read by this user. Next: check its owner and mode") from None
    except OSError as exc:
        raise ZaibeiError(Code.INVALID_CONFIG, f"{file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            str(file), (Fault("file", f"is not UTF-8 text at octet {exc.start}", "the file again as UTF-8"),)
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(str(file), (Fault("file", f"is not TOML: {exc}", "what `zaibei config example` shows"),)) from exc


def surroundings(folder: Path) -> Surroundings:
    """This machine's. `folder`: where the file lies."""
    return Surroundings(folder, socket.gethostname(), ipv6_loopback(), read_file)


def ipv6_loopback() -> bool:
    """True when a socket can be bound to ::1 here."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def read_file(path: Path, secret: bool) -> bytes:
    """A file the configuration names. Raises WrongError."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > SIDE_FILE_OCTETS_MAX:
            raise WrongError(f"{path} is no file of at most {SIDE_FILE_OCTETS_MAX} octets", "the right file")
        if secret and about.st_mode & 0o077:
            raise WrongError(f"{path} can be read by others", f"`chmod 600 {path}`, and a new token if others may have seen it")
        return path.read_bytes()
    except OSError as exc:
        raise WrongError(f"{path} cannot be read: {exc.strerror}", "a file that this user may read") from None
