"""The demo's registrations are real, whole and well-formed."""

from pathlib import Path

from ops.demo.material import manufacturers, ownership, regions, registered_addresses
from replica.model.identifier import Identifier, prefix_key


def test_every_manufacturer_of_the_shipped_registry_has_one_identifier_a_block() -> None:
    lines = list(manufacturers())
    handles = {str(line["handle"]) for line in lines}
    assert len(handles) == len(lines) > 50_000
    names = {value["data"] for line in lines for value in line["values"] if value["type"] == "ORGANISATION"}  # type: ignore[attr-defined]
    assert len(names) > 29_000
    assert {"88.118/OUI-000000", "88.118/OUI-001BC5000", "88.118/OUI-000003"} <= handles  # a list, a nested block, a range
    for handle in handles:
        Identifier.parse(handle)


def test_every_region_is_a_prefix_below_the_regions_node() -> None:
    lines = list(regions("::1", 9))
    prefixes = [str(line["prefix"]) for line in lines if "prefix" in line]
    assert len(set(prefixes)) == len(prefixes) > 6_800
    assert "88.201.420106" in prefixes
    assert all(prefix_key(prefix).startswith(prefix_key("88.201")) for prefix in prefixes)


def test_without_the_debian_package_no_address_is_invented(tmp_path: Path) -> None:
    assert registered_addresses(tmp_path / "none.csv") == {}


def test_ownership_names_each_node_once() -> None:
    lines = list(ownership({"88.118": [], "88.201": []}))
    assert [line.get("prefix") for line in lines] == ["88.118", None, "88.201", None]
