"""The rules of the sections that say where a takeover is made known: names, secret files, what confirms. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hosting.client.admin import parse_reference
from hosting.front.edge_site_key import SITE_KEY_BITS, SITE_KEY_BITS_MAX
from ops.config.faults import Reading
from ops.config.read import WrongError
from ops.config.values import Announce, RequestFolder, TopRecord
from replica.model.errors import ZaibeiError
from replica.model.handle.proofs import RSA_BITS_MAX, RSA_BITS_MIN, SECRET_OCTETS_MAX

SECTIONS = ("recursive", "request_folder", "top_record", "announce")
Table = Mapping[str, Any]
ReadFile = Callable[[Path, bool], bytes]


def adapters_of(reading: Reading, arrays: Mapping[str, Sequence[Table]], folder: Path, read_file: ReadFile) -> dict[str, Any]:
    """The adapters' fields of a MemberConfig; faults go into `reading`.

    Args:
        arrays: every section that may come several times, as it was read.
        folder: relative paths start here.
        read_file: (path, secret) -> octets; raises WrongError.
    """
    issuers = [table["name"] for table in arrays["top_level"] if "name" in table]

    def each(section: str, read: Callable[[str, Table], Any]) -> tuple[Any, ...]:
        found = [read(f"{section}[{at}]", table) for at, table in enumerate(arrays[section], 1)]
        return tuple(one for one in found if one is not None)

    check_names(reading, arrays)
    return {
        "request_folders": each("request_folder", lambda at, table: request_folder(reading, at, table, folder, issuers)),
        "top_records": each("top_record", lambda at, table: top_record(reading, at, table, folder, read_file)),
        "announces": each("announce", lambda at, table: announce(reading, at, table)),
    }


def site_key(reading: Reading, table: Table, folder: Path, read_file: ReadFile) -> Path | None:
    """The file of `[site] key_file`, checked; None: none is named. A fault goes into `reading`."""
    if not (text := table.get("key_file")):
        return None
    path: Path = folder / text
    try:
        if not SITE_KEY_BITS <= private_of(read_file(path, True)).key_size <= SITE_KEY_BITS_MAX:
            wanted = f"an RSA key of {SITE_KEY_BITS} to {SITE_KEY_BITS_MAX} bits"
            raise WrongError(f"{path} holds a key of another length", wanted)
    except WrongError as wrong:
        reading.fault("site.key_file", wrong.what, wrong.instead)
    return path


def check_names(reading: Reading, arrays: Mapping[str, Sequence[Table]]) -> None:
    """One name is one adapter, whatever its kind: status and metrics go by names."""
    seen: dict[str, str] = {}
    for section in SECTIONS:
        for at, table in enumerate(arrays[section], 1):
            name = table.get("name")
            other = seen.setdefault(name, section) if name else section
            if other != section:
                reading.fault(f"{section}[{at}].name", f"{name!r} is already the name of a [[{other}]]", "another name")


def request_folder(reading: Reading, at: str, table: Table, folder: Path, issuers: Sequence[str]) -> RequestFolder | None:
    """A checked `[[request_folder]]`; faults go into `reading`. `issuers`: names of the top-level nodes that are configured."""
    if len(table) < len(("name", "folder", "answers", "top_level", "resolver")):
        return None  # a fault is already told
    issuer, resolver = table["top_level"], table["resolver"] or None
    if issuer and issuer not in issuers:
        reading.fault(f"{at}.top_level", f"{issuer!r} is no [[top_level]]", "the name of the one whose key signs answers")
    if not issuer and resolver is None:
        reading.fault(
            f"{at}.top_level", "is missing, and so is resolver: nothing could confirm a request", 'top_level = "beijing"'
        )
    requests = (folder / table["folder"]).absolute()
    answers = (folder / table["answers"]).absolute() if table["answers"] else requests
    return RequestFolder(table["name"], requests, answers, issuer, resolver)


def top_record(reading: Reading, at: str, table: Table, folder: Path, read_file: ReadFile) -> TopRecord | None:
    """A checked `[[top_record]]`; faults go into `reading`."""
    if len(table) < len(("name", "server", "admin", "secret_file", "key_file", "index")):
        return None  # a fault is already told
    sound = len(reading.faults)
    try:
        parse_reference(table["admin"])
    except ZaibeiError as exc:
        reading.fault(f"{at}.admin", exc.trouble.message, 'admin = "300:0.NA/88.118"')
    secret, key = (folder / table[name] if table[name] else None for name in ("secret_file", "key_file"))
    if (secret is None) is (key is None):
        reading.fault(f"{at}.secret_file", "one of secret_file and key_file is needed", 'secret_file = "beijing.secret"')
    for name, path in (("secret_file", secret), ("key_file", key)):
        if path is not None:
            try:
                judge = _secret if name == "secret_file" else _private
                judge(read_file(path, True))
            except WrongError as wrong:
                reading.fault(f"{at}.{name}", wrong.what, wrong.instead)
    if len(reading.faults) > sound:
        return None
    return TopRecord(table["name"], table["server"], table["admin"], secret, key, table["index"])


def announce(reading: Reading, at: str, table: Table) -> Announce | None:
    """A checked `[[announce]]`; faults go into `reading`."""
    if len(table) < len(("name", "program", "run_s")):
        return None  # a fault is already told
    program = Path(table["program"])
    if not program.is_absolute():
        reading.fault(f"{at}.program", f"{table['program']!r} is no absolute path", 'program = "/usr/local/sbin/announce"')
        return None
    return Announce(table["name"], program, table["run_s"])


def _secret(octets: bytes) -> None:
    if not 1 <= len(secret_of(octets)) <= SECRET_OCTETS_MAX:
        raise WrongError(f"a secret key has 1 to {SECRET_OCTETS_MAX} octets", "the secret in one line of that file")


def secret_of(octets: bytes) -> bytes:
    """The secret in its file: without the line's end."""
    return octets.rstrip(b"\r\n")


def _private(octets: bytes) -> None:
    private_of(octets)


def private_of(octets: bytes) -> rsa.RSAPrivateKey:
    """The key of a PEM file. Raises WrongError."""
    instead = "a PEM file of an RSA key without a passphrase, whose public half stands in an HS_PUBKEY value"
    try:
        found = load_pem_private_key(octets, None)
    except (ValueError, TypeError) as exc:
        raise WrongError(f"is no private key: {exc}", instead) from exc
    if not isinstance(found, rsa.RSAPrivateKey) or not RSA_BITS_MIN <= found.key_size <= RSA_BITS_MAX:
        raise WrongError(f"is no RSA key of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits", instead)
    return found
