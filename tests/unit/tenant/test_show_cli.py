"""`zaibei tenant show` for a person: the quotas of a tenant, whether there is one, and the way they are written."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from ops.cli.main import cli
from replica.model.position import Position

RESOLUTIONS = "resolutions a second, of each process that answers"
REGISTRATIONS = "registrations a second"


class Member:
    def __init__(self, quota: dict[str, Any]) -> None:
        self.quota = quota

    def tenant_show(self, name: str) -> dict[str, Any]:
        return {
            "source": name,
            "title": "Region 9",
            "state": "active",
            "suspended": "",
            "answered": True,
            "prefixes": ["88.118.9"],
            "case_sensitive": [],
            "visibility": "public",
            "identifiers": 1_000,
            "octets": 2_000,
            "quota": self.quota,
            "position": str(Position(bytes(16), 1, 9, bytes(32))),
            "led_here": True,
            "documents": [],
        }


def line_of(said: str, name: str) -> str:
    [line] = [line for line in said.splitlines() if name in line]
    return line.partition(name)[2].strip()


@pytest.mark.parametrize(
    ("quota", "resolutions", "registrations"),
    [
        ({}, "no limit", "no limit"),
        ({"resolutions_per_s": 1_000.0}, "1000", "no limit"),
        ({"resolutions_per_s": 0.0, "registrations_per_s": 2.5}, "0", "2.5"),
    ],
)
def test_each_rate_is_told_as_its_own(quota: dict[str, Any], resolutions: str, registrations: str) -> None:
    shown = CliRunner().invoke(cli, ["tenant", "show", "region-9"], obj={"admin": lambda: Member(quota)})
    assert shown.exit_code == 0, shown.output
    assert (line_of(shown.stdout, RESOLUTIONS), line_of(shown.stdout, REGISTRATIONS)) == (resolutions, registrations)
