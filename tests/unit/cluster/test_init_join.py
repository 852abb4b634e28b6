"""`zaibei cluster init` and `join` on real folders, through the real service of enrolment; what a crash in between leaves."""

from __future__ import annotations

import asyncio
import json
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from ops.cli.main import cli
from ops.cluster.config_part import part_of
from ops.cluster.edge_begin import join_cluster
from ops.cluster.edge_invite import ClusterAdmission, InviteFile, PkiInviter
from ops.cluster.invites import INVITES_MAX, Invite, decode_invites, encode_invites, invite_of, with_invite
from ops.cluster.memory import CLUSTER, LINEAGE, MemoryCluster
from ops.config import load_config
from ops.machine import FolderLock
from ops.pki.edge_folder import PkiFolder
from replica.cluster.edge_card import read_card, read_lineage
from replica.enrol.edge_server import EnrolServer, EnrolService
from replica.enrol.memory import MemoryWelcome
from replica.enrol.port import AdmissionRequest, AdmissionResult, Centre
from replica.enrol.token import decode_token
from replica.model.edge_identity import ensure_identity, replace_certificate
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Pins
from replica.model.trust import Authority, Claims, Role, Trust, claims_of


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["cluster", *words])


def json_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def error_of(result: Result) -> tuple[int, str, str]:
    error = json.loads(result.stdout)["error"]
    return result.exit_code, error["code"], error["message"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --------------------------------------------------------------------------------------------------------------- init
def test_init_makes_the_first_member_and_its_file(folder: Path) -> None:
    found = json_of(run("init", "--zone", "dc-1", "--reach", "m1.example:2646", "--json"))
    data = folder / "zaibei-data"
    card = read_card(data)
    assert card is not None and card.cluster.hex() == found["cluster"]
    assert (card.number, card.name, card.members[0].addresses) == (1, "member-1", ("m1.example:2646",))
    assert read_lineage(data) == card.lineage and not found["kept_data"] and found["made_ca"]
    config = load_config().config
    assert (config.cluster.zone, config.cluster.links()) == ("dc-1", ("m1.example:2646",))
    assert config.pki.folder == data / "pki" and config.pki.roots
    identity = ensure_identity(data / "identity", "member-1")
    leaf = x509.load_pem_x509_certificate(identity.certificate_pem)
    assert claims_of(leaf) == Claims(Role.MEMBER, "member-1", 1, card.cluster)
    Trust(Pins(), Authority.parse([PkiFolder(data / "pki").roots_pem()]), frozenset(Role)).identify(
        [identity.certificate_pem], time.time()
    )


def test_init_keeps_what_is_there(folder: Path) -> None:
    data = folder / "zaibei-data"
    before = ensure_identity(data / "identity", "member-1")
    (data / "lineage").write_bytes(LINEAGE)
    (data / "journal").mkdir()
    (data / "journal" / "000001.log").write_bytes(b"entries")
    Path("zaibei.toml").write_text('[member]\nname = "member-1"\n[site]\nttl_s = 30')
    shown = run("init")
    assert shown.exit_code == 0 and "sources that pinned this member's earlier certificate" in shown.stdout
    card, after = read_card(data), ensure_identity(data / "identity", "member-1")
    assert card is not None and card.lineage == LINEAGE
    assert (data / "journal" / "000001.log").read_bytes() == b"entries"
    assert (after.signer.public, after.tls_key_pem) == (before.signer.public, before.tls_key_pem), "receipts stay checkable"
    assert (data / "identity" / "certificate.pinned.pem").read_bytes() == before.certificate_pem
    written = tomllib.loads(Path("zaibei.toml").read_text())
    assert written["site"] == {"ttl_s": 30} and written["pki"] == {"folder": str(data / "pki")}


def test_init_twice_and_init_of_a_running_member(folder: Path) -> None:
    lock = FolderLock(folder / "zaibei-data" / "lock")
    lock.path.parent.mkdir()
    lock.take()
    assert error_of(run("init", "--json"))[:2] == (7, "conflict")
    assert read_card(folder / "zaibei-data") is None
    lock.release()
    first = json_of(run("init", "--json"))
    again = error_of(run("init", "--json"))
    assert again[:2] == (7, "conflict") and first["cluster"] in again[2]


def test_init_after_a_crash_before_the_card(folder: Path) -> None:
    data = folder / "zaibei-data"
    first = json_of(run("init", "--json"))
    (data / "cluster" / "card.json").unlink()
    again = json_of(run("init", "--json"))
    assert again["lineage"] == first["lineage"] and again["cluster"] != first["cluster"] and not again["made_ca"]
    leaf = x509.load_pem_x509_certificate(ensure_identity(data / "identity", "member-1").certificate_pem)
    assert claims_of(leaf).cluster.hex() == again["cluster"]


def test_init_with_a_ca_that_died_half_made(folder: Path) -> None:
    pki = folder / "zaibei-data" / "pki"
    pki.mkdir(parents=True)
    (pki / "ca.key").write_bytes(b"half")
    assert json_of(run("init", "--json"))["made_ca"] is True


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--name", "Not A Name"], (2, "invalid_config")),
        (["--zone", "no zone!"], (2, "invalid_config")),
        (["--reach", "0.0.0.0:1"], (2, "invalid_config")),
        (["--reach", "nowhere"], (2, "invalid_config")),
    ],
)
def test_init_with_nonsense_makes_nothing(folder: Path, words: list[str], code: tuple[int, str]) -> None:
    assert error_of(run("init", *words, "--json"))[:2] == code
    assert not (folder / "zaibei-data" / "cluster").exists() and not Path("zaibei.toml").exists()


def test_a_file_of_another_member_is_left_alone() -> None:
    Path("zaibei.toml").write_text('[member]\nname = "member-7"\n')
    assert error_of(run("init", "--name", "member-1", "--json"))[:2] == (7, "conflict")


def test_sections_that_are_there_are_not_written_into(folder: Path) -> None:
    Path("zaibei.toml").write_text('[cluster]\nzone = "old"\n')
    found = json_of(run("init", "--zone", "new", "--json"))
    assert '[cluster] zone = "new"' in found["to_write"] and load_config().config.cluster.zone == "old"


# --------------------------------------------------------------------------------------------------------------- join
class Watched(ClusterAdmission):
    """Calls `before` when somebody asks: at that moment the new member waits for its answer."""

    before: Callable[[], None] = staticmethod(lambda: None)

    async def admit(self, request: AdmissionRequest) -> AdmissionResult:
        self.before()
        return await super().admit(request)


@dataclass
class Centre1:
    """A first member that enrols."""

    world: MemoryCluster
    inviter: PkiInviter
    data: Path
    admission: Watched


@pytest.fixture
async def centre(folder: Path) -> AsyncIterator[Centre1]:
    data = folder / "first"
    world = MemoryCluster.of([("m1", "a")], ["g"])
    ca = PkiFolder.create(data / "pki", "test")
    mine = ensure_identity(data / "identity", "m1")
    tls = mine.tls_key().public_key()
    replace_certificate(
        data / "identity", ca.issue(Claims(Role.MEMBER, "m1", 1, CLUSTER), tls, mine.signer.public), mine.tls_key_pem
    )
    trusts = Trust(Pins(), Authority.parse([ca.roots_pem()]), frozenset(Role))
    admission = Watched(data, world)
    service = EnrolService(ca, ca, lambda: [Centre("m1", 1, ())], trusts, MemoryWelcome(), admission, CLUSTER)
    server = EnrolServer(service, ensure_identity(data / "identity", "m1"))
    await server.start([("127.0.0.1", 0)])
    try:
        yield Centre1(
            world, PkiInviter(data, ca, lambda: tuple(f"{host}:{port}" for host, port in server.addresses)), data, admission
        )
    finally:
        await server.stop()


async def test_a_member_that_comes_before_the_first_one_stands_in_the_list_is_not_number_1(folder: Path) -> None:
    world = MemoryCluster.of([], [])
    data = folder / "first"
    InviteFile(data).add(Invite("m2", "", 0, 1 << 60), 0)
    coming = asyncio.create_task(ClusterAdmission(data, world).admit(AdmissionRequest("m2", "", ("m2:1",), ())))
    await asyncio.sleep(0.05)
    assert world.admit("m1", "") == 1, "the list was still empty"
    assert (await coming).number == 2


async def test_members_invited_at_once_are_all_invited(centre: Centre1) -> None:
    names = [f"m{number}" for number in range(2, 14)]
    await asyncio.gather(*(centre.inviter.invite(name, "", 0, 600) for name in names))
    assert sorted(one.name for one in InviteFile(centre.data).read()) == sorted(names)


async def test_a_member_joins_with_its_token(centre: Centre1, folder: Path) -> None:
    token, _ = await centre.inviter.invite("m2", "b", 0, 600)
    words = ("join", token, "--reach", "m2.example:2646", "--data", str(folder / "second"), "--json")
    found = json_of(await asyncio.to_thread(run, *words))
    assert (found["number"], found["name"], found["cluster"]) == (2, "m2", CLUSTER.hex())
    card = read_card(folder / "second")
    assert card is not None and [one.name for one in card.others()] == ["m1"] and read_lineage(folder / "second") == LINEAGE
    member = centre.world.state.member(2)
    assert member is not None and (member.name, member.zone, member.links) == ("m2", "b", ("m2.example:2646",))
    config = load_config().config
    assert (config.member.name, config.member.data) == ("m2", folder / "second")
    assert config.pki.roots == (folder / "second" / "pki" / "ca.pem",)
    identity = ensure_identity(folder / "second" / "identity", "m2")
    assert claims_of(x509.load_pem_x509_certificate(identity.certificate_pem)).number == 2
    assert not (folder / "second" / "cluster" / "join").exists()
    again = error_of(await asyncio.to_thread(run, *words))
    assert again[:2] == (7, "conflict"), "a folder joins once"
    other = error_of(await asyncio.to_thread(run, "join", token, "--config", "none.toml", "--json"))
    assert other[1] == "not_found"


async def test_a_token_is_good_once(centre: Centre1, folder: Path) -> None:
    token = decode_token((await centre.inviter.invite("m2", "", 0, 600))[0])
    await join_cluster(folder / "second", token, "b", ("m2:1",), ())
    with pytest.raises(ZaibeiError) as raised:
        await join_cluster(folder / "third", token, "b", ("m3:1",), ())
    assert raised.value.code is Code.NOT_AUTHORISED and len(list(centre.world.state.living())) == 2
    found = centre.world.state.member(2)
    assert found is not None and found.zone == "b", "without a zone in the invite its own word counts"


@pytest.mark.parametrize("lost", ["card", "identity", "lineage"])
async def test_an_interrupted_join_goes_on_with_the_same_number(centre: Centre1, folder: Path, lost: str) -> None:
    """The answer was on its way, or half on the disk, when the machine died."""
    token = decode_token((await centre.inviter.invite("m2", "", 0, 600))[0])
    data = folder / "second"
    kept: dict[str, bytes] = {}

    def dying() -> None:
        kept.update({file.name: file.read_bytes() for file in (data / "cluster" / "join").iterdir()})

    centre.admission.before = dying
    first = await join_cluster(data, token, "b", ("m2:1",), ())
    (data / "cluster" / "card.json").unlink()
    if lost == "identity":
        for file in (data / "identity").iterdir():
            file.unlink()
    if lost != "card":
        (data / "lineage").unlink()
    (data / "cluster" / "join").mkdir()
    for name, octets in kept.items():
        (data / "cluster" / "join" / name).write_bytes(octets)
    assert await join_cluster(data, token, "b", ("m2:1",), ()) == first
    assert len(list(centre.world.state.living())) == 2 and read_card(data) == first


async def test_a_folder_with_data_does_not_join(centre: Centre1, folder: Path) -> None:
    token = decode_token((await centre.inviter.invite("m2", "", 0, 600))[0])
    (folder / "second" / "journal").mkdir(parents=True)
    with pytest.raises(ZaibeiError, match="holds data already"):
        await join_cluster(folder / "second", token, "b", ("m2:1",), ())
    (folder / "second" / "cluster" / "join").mkdir(parents=True)
    with pytest.raises(ZaibeiError, match="holds data already"):
        await join_cluster(folder / "second", token, "b", ("m2:1",), ())


async def test_a_replacement_takes_the_place_of_the_lost_one(centre: Centre1, folder: Path) -> None:
    world = centre.world
    for name in ("m2", "m3"):
        world.come(world.admit(name, "a"))
    world.live(40)
    world.down = {3}
    token = decode_token((await centre.inviter.invite("m4", "a", 3, 600))[0])
    card = await join_cluster(folder / "fourth", token, "", ("m4:1",), ())
    found = world.state.member(card.number)
    assert found is not None and found.replaces == 3 and card.number == 4
    world.come(4)
    world.live(60)
    assert world.logs["g"].voters == {1, 2, 4}


async def test_whom_nobody_invited_and_whom_the_rules_refuse(centre: Centre1) -> None:
    admission = ClusterAdmission(centre.data, centre.world)
    with pytest.raises(ZaibeiError, match="nobody invited m9"):
        await admission.admit(AdmissionRequest("m9", "", ("m9:1",), ()))
    await centre.inviter.invite("m1", "", 0, 600)
    with pytest.raises(ZaibeiError, match="belongs to member 1"):
        await admission.admit(AdmissionRequest("m1", "", ("m1:1",), ()))
    centre.world.deaf = True
    with pytest.raises(ZaibeiError) as raised:
        await admission.admit(AdmissionRequest("m1", "", ("m1:1",), ()))
    assert raised.value.code is Code.UNREACHABLE


async def test_without_the_ca_nobody_is_invited(centre: Centre1) -> None:
    (centre.data / "pki" / "ca.key").unlink()
    with pytest.raises(ZaibeiError) as raised:
        await centre.inviter.invite("m2", "", 0, 600)
    assert raised.value.code is Code.NOT_FOUND and InviteFile(centre.data).read() == ()
    nowhere = PkiInviter(centre.data, PkiFolder(centre.data / "pki"), tuple)
    with pytest.raises(ZaibeiError, match="listens nowhere"):
        await nowhere.invite("m2", "", 0, 600)


async def test_a_sources_token_is_no_members(centre: Centre1, folder: Path) -> None:
    token = replace(decode_token((await centre.inviter.invite("m2", "", 0, 600))[0]), role=Role.SOURCE)
    with pytest.raises(ZaibeiError, match="zaibei source join"):
        await join_cluster(folder / "second", token, "", ("m2:1",), ())


# ------------------------------------------------------------------------------------------------------------- values
def test_invites_are_kept_until_they_end_and_no_longer() -> None:
    first, later = Invite("m2", "a", 0, 1_000), Invite("m2", "b", 3, 2_000)
    invites = with_invite(with_invite((), first, 0), later, 500)
    assert invites == (later,) and invite_of(invites, "m2") == later and invite_of(invites, "m3") is None
    assert with_invite(invites, Invite("m3", "", 0, 9_000), 2_000) == (Invite("m3", "", 0, 9_000),)
    assert decode_invites(encode_invites(invites), "file") == invites
    with pytest.raises(ZaibeiError):
        decode_invites(b"{}", "file")
    full = tuple(Invite(f"m{at}", "", 0, 9_000) for at in range(INVITES_MAX))
    with pytest.raises(ZaibeiError, match="are open"):
        with_invite(full, Invite("new", "", 0, 9_000), 0)


def test_what_a_file_lacks() -> None:
    wanted = {"cluster": {"zone": "a", "reach": ("x:1", "y:2"), "replicas": 5}, "pki": {"roots": ["ca.pem"], "folder": ""}}
    part = part_of({}, wanted)
    assert tomllib.loads(part.text) == {
        "cluster": {"zone": "a", "reach": ["x:1", "y:2"], "replicas": 5},
        "pki": {"roots": ["ca.pem"]},
    }
    assert part_of(tomllib.loads(part.text), wanted) == part_of({}, {})
    other = part_of({"cluster": {"zone": "b"}, "pki": {"roots": ["ca.pem"]}}, wanted)
    assert other.text == "" and other.told[0] == '[cluster] zone = "a"'
    assert part_of({}, {"cluster": {"zone": 'quo"te\n'}}).text and tomllib.loads(
        part_of({}, {"cluster": {"zone": 'quo"te\n'}}).text
    ) == {"cluster": {"zone": 'quo"te\n'}}
