"""`zaibei prefix move` against `zaibei up`: lookups go on all the time, the member is killed in the middle, nothing is lost."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.admin.edge_client import AdminClient
from ops.config.values import ADMIN_SOCKET_FILE
from replica.model.errors import Code, ZaibeiError
from tests.integration.test_register_cli import Up, folder, run, ups

__all__ = ["folder", "ups"]  # fixtures

PREFIX, NAMES = "88.118.9.5", [f"88.118.9.5.{n % 2}/n{n}" for n in range(60)]
REGION_5 = """
[[source]]
name = "region-5"
prefixes = ["88.118.5"]
hosted = true
{registrars}
"""


class Lookups:
    """A client that asks for every name, over and over, over HTTP; what was not answered with its record is kept."""

    def __init__(self) -> None:
        self.address, self.asked, self.failed = "", 0, []  # type: ignore[var-annotated]
        self._stop = threading.Event()

    @contextmanager
    def going_on(self, address: str) -> Iterator[None]:
        self.address = address
        self._stop.clear()
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for name in NAMES:
                self.asked += 1
                if (told := lookup(self.address, name)) != [name]:
                    self.failed.append((name, told))


def lookup(address: str, name: str) -> Any:
    try:
        with urllib.request.urlopen(f"http://{address}/api/handles/{name}", timeout=5) as answer:
            return [one["data"]["value"] for one in json.load(answer)["values"] if one["type"] == "URL"]
    except urllib.error.HTTPError as exc:
        return exc.code


@pytest.fixture
def two(folder: Path, ups: list[Up]) -> Up:
    """A member with two regions, and 60 identifiers below the prefix that moves."""
    ups[-1].stop()
    text = (folder / "zaibei.toml").read_text()
    registrars = text[text.index("hosted = true\n") + len("hosted = true\n") :]
    text = text.replace("http = []", 'http = ["127.0.0.1:0"]') + REGION_5.format(registrars=registrars)
    (folder / "zaibei.toml").write_text(text)
    ups.append(Up(folder))
    rows = folder / "names.csv"
    rows.write_text("identifier,URL\n" + "".join(f"{name},{name}\n" for name in [*NAMES, "88.118.9/own"]))
    assert run("tenant", "import", str(rows), *client(folder, ups[-1]))[0] == 0
    return ups[-1]


def client(folder: Path, up: Up) -> list[str]:
    return ["--server", up.addresses[0], "--identity", str(folder / "registrar"),
            "--member-file", str(folder / "zaibei-data" / "identity" / "certificate.pem")]  # fmt: skip


def prefix(folder: Path, *words: str) -> tuple[int, Any]:
    return run("prefix", *words, "--config", str(folder / "zaibei.toml"))


def put(folder: Path, up: Up, name: str) -> tuple[int, Any]:
    return run("register", "put", name, "--value", "URL=x", "--timeout-ms", "2000", *client(folder, up))


def test_a_prefix_moves_while_everybody_looks_it_up(folder: Path, two: Up) -> None:
    assert prefix(folder, "move", "88.118.7", "--to", "region-5")[0] == 6
    assert prefix(folder, "move", "88.118.5", "--to", "region-5")[0] == 4
    assert prefix(folder, "move", PREFIX, "--to", "region-4")[0] == 4
    code, plan = prefix(folder, "move", PREFIX, "--to", "region-5")
    assert code == 0 and not plan["plan"]["begun"]
    lookups = Lookups()
    with lookups.going_on(two.told["http"][0]):
        time.sleep(0.3)
        code, done = prefix(folder, "move", PREFIX, "--to", "region-5", "--plan", plan["plan"]["token"], "--by", "li.wei")
        assert code == 0, done
        assert (done["move"]["copied"], done["move"]["dropped"]) == (len(NAMES), len(NAMES))
        time.sleep(0.3)
    assert lookups.failed == [] and lookups.asked > 2 * len(NAMES)
    code, shown = prefix(folder, "show", PREFIX)
    assert code == 0 and shown["prefix"]["owner"] == "region-5" and shown["prefix"]["since"].startswith("since 20")
    steps = {(one["group"], one["step"]) for one in shown["prefix"]["moves"]}
    assert steps == {("region-9", "DROPPED"), ("region-5", "ACQUIRED")}
    digests = {one["digest"] for one in shown["prefix"]["moves"]}
    assert len(digests) == 1 and digests != {""}
    assert put(folder, two, f"{PREFIX}/fresh")[0] == 0 and lookup(two.told["http"][0], f"{PREFIX}/fresh") == ["x"]
    tenants = {one["source"]: one for one in run("tenant", "list", "--config", str(folder / "zaibei.toml"))[1]["tenants"]}
    assert (tenants["region-9"]["identifiers"], tenants["region-5"]["identifiers"]) == (1, len(NAMES) + 1)
    code, again = prefix(folder, "move", PREFIX, "--to", "region-5", "--plan", plan["plan"]["token"])
    assert code == 0 and (again["move"]["copied"], again["move"]["dropped"]) == (0, 0), "running it again is harmless"


def test_the_member_is_killed_at_every_step(folder: Path, two: Up, ups: list[Up]) -> None:
    token = prefix(folder, "move", PREFIX, "--to", "region-5")[1]["plan"]["token"]

    def asked(name: str, *args: Any) -> Any:
        return getattr(AdminClient(folder / "zaibei-data" / ADMIN_SOCKET_FILE), name)(*args)

    def killed() -> Up:
        ups[-1].kill()
        ups.append(Up(folder))
        assert all(lookup(ups[-1].told["http"][0], name) == [name] for name in NAMES)
        return ups[-1]

    def step(name: str) -> Any:
        return asked("move_step", "region-9", PREFIX, "region-5", token, name, "li", "why")

    up = two
    for name in ("freeze", "release"):
        step(name)
        up = killed()
        code, told = put(folder, up, NAMES[0])
        assert code == 4 and told["error"]["code"] == Code.FENCED, told
        assert put(folder, up, "88.118.9/own")[0] == 0, "what does not move is registered all the time"
    page = asked("move_page", "region-9", token, "")
    asked("move_take", "region-5", token, page["rows"][:20])
    killed()
    with pytest.raises(ZaibeiError, match="digests differ"):
        asked("move_acquire", "region-5", token)
    asked("move_take", "region-5", token, page["rows"])
    asked("move_acquire", "region-5", token)
    up = killed()
    assert put(folder, up, f"{PREFIX}/fresh")[0] == 0, "the new one registers"
    code, done = prefix(folder, "move", PREFIX, "--to", "region-5", "--plan", token)
    assert code == 0 and (done["move"]["copied"], done["move"]["dropped"]) == (0, len(NAMES))
    up = killed()
    assert prefix(folder, "show", PREFIX)[1]["prefix"]["owner"] == "region-5"
    assert put(folder, up, NAMES[0])[0] == 0
