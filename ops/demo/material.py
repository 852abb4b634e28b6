"""Real registrations for the demo, as the JSON lines a source agent reads.

* manufacturers (a `records` node, 88.118): the IEEE registry of address blocks that package python-stdnum ships, one identifier
  per assigned block; where Debian's `ieee-data` is installed, the organisation's registered address joins its record.
* regions (a `routes` node, 88.201): China's table of administrative regions; each region is an enterprise-like prefix with a site
  of its own, so that its identifiers are referred there.
* top (the top-level node, 88): who owns 88.118 and 88.201, and business documents of the operators.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import stdnum

MANUFACTURERS_PREFIX = "88.118"
REGIONS_PREFIX = "88.201"
TOP_PREFIX = "88"
IEEE_DATA = Path("/usr/share/ieee-data/oui.csv")
BLOCK_RANGE_MAX = 4_096  # a longer run in the table would be an error of the table
RECORD_TTL_S = 3_600

_LINE = re.compile(r'^( *)([0-9A-F,-]+)(?: (\w+)="(.*?)")?\s*$')


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the numbering tables: the digits above it, its own digits, its property."""

    digits: str
    value: str


def _table(text: str) -> Iterator[Row]:
    """Rows of a numdb table with their full digits; ranges and lists expanded."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if line.startswith("#") or match is None:
            continue
        indent = len(match[1])
        while above and above[-1][0] >= indent:
            above.pop()
        head = "".join(digits for _, digits in above)
        for part in match[2].split(","):
            for digits in _expand(part):
                if match[4] is not None:
                    yield Row(head + digits, match[4])
        above.append((indent, match[2]))


def _expand(part: str) -> Iterator[str]:
    first, dash, last = part.partition("-")
    if not dash:
        yield first
        return
    base = 16 if re.search("[A-F]", part) or len(first) == 6 else 10
    numbers = range(int(first, base), int(last, base) + 1)
    if len(numbers) > BLOCK_RANGE_MAX:
        raise ValueError(f"the table's range {part} holds {len(numbers)} numbers")
    yield from (f"{number:0{len(first)}{'X' if base == 16 else 'd'}}" for number in numbers)


def _shipped(*path: str) -> str:
    return resources.files(stdnum).joinpath(*path).read_text(encoding="utf-8")


def _value(index: int, kind: str, data: str) -> dict[str, object]:
    return {"index": index, "type": kind, "data": data, "ttl": RECORD_TTL_S}


def registered_addresses(path: Path = IEEE_DATA) -> dict[str, str]:
    """Assignment -> registered address, from Debian's `ieee-data`; empty where it is not installed."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["Assignment"]: row["Organization Address"].strip() for row in csv.DictReader(file)}


def manufacturers() -> Iterator[dict[str, object]]:
    """One record per address block assigned by the IEEE: about 51,000 identifiers of 30,000 organisations."""
    addresses = registered_addresses()
    organisations: dict[str, list[str]] = {}
    for row in _table(_shipped("oui.dat")):  # a few old blocks were assigned to two organisations
        organisations.setdefault(row.digits, []).append(row.value)
    for digits, names in organisations.items():
        values = [_value(1, "URL", f"https://standards.example/oui/{digits}")]
        values += [_value(2 + place, "ORGANISATION", name) for place, name in enumerate(names)]
        if digits in addresses:
            values.append(_value(2 + len(names), "ADDRESS", addresses[digits]))
        yield {"handle": f"{MANUFACTURERS_PREFIX}/OUI-{digits}", "values": values}


def regions(address: str, port: int) -> Iterator[dict[str, object]]:
    """One delegated prefix per county (6-digit code), each with a site of its own; provinces and counties as documents.

    Args:
        address, port: where the enterprise stand-in listens (IPv4 or IPv6 literal).
    """
    province = ""
    for row in _table(_shipped("cn", "loc.dat")):
        if len(row.digits) == 2:
            province = row.value
            yield {"document": "province", "id": row.digits, "body": {"name": row.value}}
            continue
        name = re.sub(r"\[[^]]*\]", " ", row.value).strip()
        yield {
            "prefix": f"{REGIONS_PREFIX}.{row.digits}",
            "sites": [{"desc": f"{province}{name}", "address": address, "tcp": port, "udp": port}],
        }


def ownership(sites: dict[str, list[dict[str, object]]]) -> Iterator[dict[str, object]]:
    """The top-level node's statements: whose each prefix is and where it answers, first site first.

    Args:
        sites: prefix -> its published sites.
    """
    operators = {MANUFACTURERS_PREFIX: "manufacturers", REGIONS_PREFIX: "regions"}
    for prefix, published in sites.items():
        yield {"prefix": prefix, "sites": published}
        yield {
            "document": "operator",
            "id": operators[prefix],
            "body": {"prefix": prefix, "hosting_unit": "zaibei", "deposit": "continuous", "state": "active"},
        }
