"""The rules of `[pki]`: which files must be there, and what follows from which. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ops.config.faults import Reading
from ops.config.read import WrongError
from ops.config.values import PkiPart
from replica.model.errors import ZaibeiError
from replica.model.trust import Authority

ROOT_FILE, LIST_FILE = "ca.pem", "crl.pem"  # in the folder of a private CA


def pki_part(reading: Reading, table: Mapping[str, Any], folder: Path, read_file: Callable[[Path, bool], bytes]) -> PkiPart:
    """The checked section; faults go into `reading`.

    Args:
        folder: relative paths start here.
        read_file: (path, secret) -> octets; raises WrongError.
    """
    if len(table) < len(reading_keys()):
        return PkiPart()  # a fault is already told
    own = folder / table["folder"] if table["folder"] else None
    roots = tuple(folder / name for name in table["roots"]) or ((own / ROOT_FILE,) if own else ())
    lists = tuple(folder / name for name in table["crl"]) or ((own / LIST_FILE,) if own and not table["roots"] else ())
    passphrase = folder / table["passphrase_file"] if table["passphrase_file"] else None
    if lists and not roots:
        reading.fault("pki.crl", "stands without the CA that signed it", 'roots = ["ca.pem"] beside it')
        return PkiPart()
    _check_files(reading, roots, lists, passphrase, read_file)
    return PkiPart(own, passphrase, roots, lists, table["enrol"], table["reach"], table["feeds"])


def reading_keys() -> tuple[str, ...]:
    """What the schema gives when no value is faulty."""
    return ("folder", "passphrase_file", "roots", "crl", "enrol", "reach", "feeds")


def _check_files(
    reading: Reading,
    roots: tuple[Path, ...],
    lists: tuple[Path, ...],
    passphrase: Path | None,
    read_file: Callable[[Path, bool], bytes],
) -> None:
    octets: dict[str, list[bytes]] = {"roots": [], "crl": []}
    wanted = [("roots", path, False) for path in roots] + [("crl", path, False) for path in lists]
    wanted += [("passphrase_file", passphrase, True)] if passphrase else []
    sound = True
    for key, path, secret in wanted:
        try:
            octets.setdefault(key, []).append(read_file(path, secret))
        except WrongError as wrong:
            reading.fault(f"pki.{key}", wrong.what, f"{wrong.instead}; `zaibei pki init` makes a CA")
            sound = False
    if not roots or not sound:
        return
    try:
        Authority.parse(octets["roots"], octets["crl"])
    except ZaibeiError as exc:
        reading.fault("pki.roots", exc.trouble.message, "the CA's own PEM files, as it publishes them")
