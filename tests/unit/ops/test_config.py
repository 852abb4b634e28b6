"""The configuration: defaults, every rule, all faults at once, and text that is not a configuration."""

from __future__ import annotations

import base64
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from ops.config import Address, MemberConfig, TakeoverPolicy, load_config
from ops.config.check import Surroundings, check
from ops.config.edge_load import read_file
from ops.config.faults import ConfigError, Reading
from ops.config.read import WrongError
from ops.config.schema import REQUIRED, SECTIONS
from ops.config.show import document, example, rows
from replica.model.edge_identity import Identity
from replica.model.errors import Code, ZaibeiError
from replica.model.states import Mode
from tests.unit.ops.support import source_identity


def no_file(path: Path, secret: bool) -> bytes:
    raise AssertionError(f"{path} read")


AROUND = Surroundings(Path("/srv/z"), "host-1", True, no_file)


@pytest.fixture(scope="module")
def node_a(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return source_identity(tmp_path_factory.mktemp("a"))


def source(identity: Identity, **more: Any) -> dict[str, Any]:
    der = x509.load_pem_x509_certificate(identity.certificate_pem).public_bytes(Encoding.DER)
    line = base64.b64encode(der).decode()
    return {"name": identity.name, "fingerprint": identity.fingerprint, "certificate": line, "prefixes": ["88.118"], **more}


def good(root: dict[str, Any], around: Surroundings = AROUND) -> MemberConfig:
    return check(root, "test.toml", around)[0]


def faults(root: dict[str, Any], around: Surroundings = AROUND) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        check(root, "test.toml", around)
    assert all(fault.what and fault.instead for fault in caught.value.faults)
    return [(fault.path, fault.what) for fault in caught.value.faults]


def test_no_file_at_all_is_everything_on_loopback() -> None:
    config = good({})
    assert config.member.data == Path("/srv/z/zaibei-data")
    assert config.member.machine == "host-1"
    for name in ("handle", "http", "grpc", "feed", "beats", "metrics"):
        listened = getattr(config.listen, name)
        assert [address.host for address in listened] == ["127.0.0.1", "::1"], name
    assert [(a.host, a.handle_port, a.http_port) for a in config.site.addresses] == [
        ("127.0.0.1", 2641, 8000),
        ("::1", 2641, 8000),
    ]
    assert config.sources == () and config.notes == ()


def test_every_default_passes_its_own_reader() -> None:
    reading = Reading("defaults")
    for section in SECTIONS.values():
        reading.table(section, section.name, {key.name: "" for key in section.keys if key.default is REQUIRED})
    assert [fault for fault in reading.faults if "''" not in fault.what] == []


def test_without_ipv6_only_defaults_are_narrowed() -> None:
    around = Surroundings(Path("/srv/z"), "h", False, no_file)
    config, origins = check({"listen": {"http": ["[::1]:80"]}}, "test.toml", around)
    assert config.listen.handle == (Address("127.0.0.1", 2641),)
    assert config.listen.http == (Address("::1", 80),)
    assert origins["listen.handle"] == "default (no IPv6 on this machine)"


def test_the_example_file_means_the_defaults() -> None:
    assert good(tomllib.loads(example())) == good({})


def test_every_line_of_the_example_is_toml_once_uncommented() -> None:
    lines = [line[1:] if line[:1] == "#" and line[1:2] not in (" ", "") else line for line in example().splitlines()]
    root = tomllib.loads("\n".join(lines))
    assert set(root) == set(SECTIONS)
    for name, section in SECTIONS.items():
        table = root[name][0] if section.many else root[name]
        assert set(table) == {key.name for key in section.keys}


def test_a_whole_source(node_a: Identity) -> None:
    probes = [{"protocol": "tcp", "address": "2001:db8::7", "port": 2641}]
    pull = ["node-a.example:2643", "[2001:db8::7]:2643"]
    config = good(
        {
            "source": [
                source(
                    node_a,
                    mode="mixed",
                    pull=pull,
                    takeover="automatic",
                    horizon_s=60,
                    case_sensitive=["88.118.7"],
                    probes=probes,
                )
            ]
        }
    )
    one = config.sources[0]
    assert (one.name, one.mode, one.takeover, one.horizon_s, one.armed) == (
        "node-a",
        Mode.MIXED,
        TakeoverPolicy.AUTOMATIC,
        60,
        True,
    )
    assert [str(address) for address in one.pull] == pull
    assert one.peer.prefixes == (b"h88\x01118",)
    assert one.probes[0].address == "2001:db8::7"
    assert config.pins().by_certificate(node_a.certificate_pem) == one.peer
    assert "operators are configured" in config.notes[0]


def test_all_faults_at_once() -> None:
    root = {
        "membr": {},
        "member": {"name": "Bad Name", "log": "xml", "dta": "x"},
        "listen": {"handle": ["127.0.0.1"], "http": ["[::1]:2642"], "fronts": True},
        "limits": {"memory_mb": 1},
        "source": {"name": "a"},
        "recursive": [{"name": "r", "url": "http://user:pw@h"}],
        "operator": [{"name": "o"}],
    }
    assert [path for path, _ in faults(root)] == [
        "membr",
        "member.dta",
        "member.name",
        "member.log",
        "listen.handle",
        "listen.fronts",
        "limits.memory_mb",
        "source",
        "recursive[1].url",
        "operator[1].public_key",
        "listen.grpc",
    ]


def test_an_unknown_key_is_answered_with_the_near_one() -> None:
    with pytest.raises(ConfigError) as caught:
        check({"listen": {"handel": []}, "zzz": 1}, "test.toml", AROUND)
    assert [fault.instead for fault in caught.value.faults] == [
        "one of " + ", ".join(SECTIONS),
        "'handle' (did you mean that?)",
    ]


@pytest.mark.parametrize(
    ("listen", "path"),
    [
        ({"http": ["127.0.0.1:2641"]}, "listen.http"),
        ({"metrics": ["[::1]:2643"]}, "listen.metrics"),
        ({"handle": ["0.0.0.0:2644"], "allow_public": True}, "listen.beats"),
        ({"beats": ["[::1]:2641"]}, "listen.beats"),
    ],
)
def test_a_port_is_used_once(listen: dict[str, Any], path: str) -> None:
    assert path in [at for at, what in faults({"listen": listen}) if "already used" in what]


def test_udp_and_tcp_are_different_ports() -> None:
    good({"listen": {"beats": ["127.0.0.1:8000"]}})
    good({"listen": {"beats": ["127.0.0.1:0"], "handle": ["127.0.0.1:0", "[::1]:0"], "http": ["127.0.0.1:0"]}})


@pytest.mark.parametrize("address", ["0.0.0.0:2641", "[::]:2641", "192.0.2.1:2641", "[2001:db8::1]:2641"])
def test_beyond_loopback_needs_a_word(address: str) -> None:
    assert faults({"listen": {"handle": [address]}}) == [("listen.handle", f"{address} can be reached from other machines")]
    assert good({"listen": {"handle": [address], "allow_public": True}}).listen.handle == (Address.parse(address),)


def test_a_fingerprint_must_be_the_certificates(node_a: Identity) -> None:
    found = faults({"source": [source(node_a, fingerprint="sha256:" + "0" * 64)]})
    assert found == [("source[1].fingerprint", f"the certificate has another one, {node_a.fingerprint}")]


def test_a_name_must_be_the_certificates(node_a: Identity) -> None:
    assert faults({"source": [source(node_a, name="node-b")]}) == [
        ("source[1].name", "'node-b', but its certificate names 'node-a'")
    ]


def test_a_certificate_is_needed_once(node_a: Identity) -> None:
    table = source(node_a)
    assert faults({"source": [{**table, "certificate_file": "a.pem"}]}) == [
        ("source[1].certificate_file", "stands beside certificate")
    ]
    del table["certificate"]
    assert faults({"source": [table]}) == [("source[1].certificate", "is missing")]


def test_a_certificate_in_a_file(node_a: Identity, tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(node_a.certificate_pem)
    table = {key: value for key, value in source(node_a, certificate_file="a.pem").items() if key != "certificate"}
    around = Surroundings(tmp_path, "h", True, read_file)
    assert good({"source": [table]}, around).sources[0].fingerprint == node_a.fingerprint
    (tmp_path / "a.pem").unlink()
    assert [path for path, _ in faults({"source": [table]}, around)] == ["source[1].certificate_file"]


def test_garbage_is_no_certificate(node_a: Identity) -> None:
    assert [path for path, _ in faults({"source": [source(node_a, certificate="AAAA")]})] == ["source[1].certificate"]


def test_a_prefix_belongs_to_one_source(node_a: Identity, tmp_path: Path) -> None:
    other = source_identity(tmp_path, "node-b")
    two = [source(node_a, prefixes=["88.118", "88.200"]), source(other, prefixes=["88.118.5", "88.200"])]
    assert faults({"source": two}) == [("source[2].prefixes", "88.200 already belongs to source[1]")]
    assert faults({"source": [source(node_a, prefixes=[])]})[0][0] == "source[1].prefixes"


def test_names_clash(node_a: Identity) -> None:
    assert ("source[2].name", "'node-a' is already source[1]") in faults(
        {"source": [source(node_a), source(node_a, prefixes=["86"])]}
    )
    assert faults({"member": {"name": "node-a"}, "source": [source(node_a)]})[0][0] == "source[1].name"


def test_case_policy_lies_below_its_own_prefixes(node_a: Identity) -> None:
    assert faults({"source": [source(node_a, case_sensitive=["88.1180"])]}) == [
        ("source[1].case_sensitive", "88.1180 is not below its prefixes")
    ]


def test_two_operators_are_two_keys() -> None:
    key = "11" * 32
    found = faults(
        {"operator": [{"name": "a", "public_key": key}, {"name": "b", "public_key": base64.b64encode(b"\x11" * 32).decode()}]}
    )
    assert found == [("operator[2].public_key", "is the key of operator[1]")]


def test_a_token_file_only_its_user_may_read(tmp_path: Path) -> None:
    token = tmp_path / "t"
    token.write_text("secret\n")
    token.chmod(0o600)
    around = Surroundings(tmp_path, "h", True, read_file)
    root = {"recursive": [{"name": "r", "url": "http://[::1]:8080/", "token_file": "t"}]}
    assert good(root, around).recursives[0].token_file == token
    token.chmod(0o644)
    assert [(path, "others" in what) for path, what in faults(root, around)] == [("recursive[1].token_file", True)]
    token.unlink()
    assert [path for path, _ in faults(root, around)] == ["recursive[1].token_file"]


def test_the_part_about_a_cluster() -> None:
    plain = good({}).cluster
    assert (plain.zone, plain.replicas) == ("", 3)
    assert plain.links() == ("127.0.0.1:2646", "[::1]:2646")
    given = {"listen": ["0.0.0.0:2646"], "reach": ["m1.example:2646"], "zone": "dc-1", "replicas": 5}
    whole = good({"listen": {"allow_public": True}, "cluster": given}).cluster
    assert whole.links() == ("m1.example:2646",) and (whole.zone, whole.replicas) == ("dc-1", 5)
    assert good({"listen": {"allow_public": True}, "cluster": {"listen": ["0.0.0.0:2646"]}}).cluster.links() == ()
    narrow = check({}, "t", Surroundings(Path("/srv/z"), "h", False, no_file))[0].cluster
    assert narrow.links() == ("127.0.0.1:2646",)


@pytest.mark.parametrize(
    ("cluster", "path"),
    [
        ({"replicas": 2}, "cluster.replicas"),
        ({"replicas": True}, "cluster.replicas"),
        ({"zone": "no zone!"}, "cluster.zone"),
        ({"reach": ["0.0.0.0:2646"]}, "cluster.reach"),
        ({"listen": ["192.0.2.1:2646"]}, "cluster.listen"),  # beyond loopback without a word
        ({"listen": ["127.0.0.1:2643"]}, "cluster.listen"),  # the feed is there
    ],
)
def test_what_a_cluster_cannot_be(cluster: dict[str, Any], path: str) -> None:
    assert [at for at, _ in faults({"cluster": cluster})] == [path]


def test_origins_say_where_a_value_comes_from(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[member]\nname = "m-2"\n')
    found = load_config(tmp_path / "m.toml", data=tmp_path / "d")
    origins = {path: (value, origin) for path, value, origin in rows(found.config, found.origins)}
    assert origins["member.name"] == ("m-2", str(tmp_path / "m.toml"))
    assert origins["member.data"] == (str(tmp_path / "d"), "--data")
    assert origins["listen.fronts"] == ("0", "default")
    assert document(found.config)["listen"]["feed"] == ["127.0.0.1:2643", "[::1]:2643"]


def test_a_fault_in_the_file_of_an_enrolled_source_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[member]\nname = "m-2"\ndata = "d"\n[[source]]\nname = "a"\nnonsense = 1\n')
    folder = tmp_path / "d" / "sources.d"
    folder.mkdir(parents=True)
    for name in ("b", "c"):
        (folder / f"{name}.toml").write_text(f'[[source]]\nname = "{name}"\n{name}-nonsense = 1\n')
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "m.toml")
    unknown = {fault.path for fault in caught.value.faults if "nonsense" in fault.path}
    assert unknown == {
        "source[1].nonsense",
        f"{folder / 'b.toml'}: source[1].b-nonsense",
        f"{folder / 'c.toml'}: source[1].c-nonsense",
    }


def test_which_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.toml").write_text('[member]\nname = "other"\n')
    assert load_config(environment={}).origin == "embedded defaults"
    assert load_config(environment={"ZAIBEI_CONFIG": "other.toml"}).config.member.name == "other"
    (tmp_path / "zaibei.toml").write_text('[member]\nname = "here"\n')
    assert load_config(environment={}).config.member.name == "here"


@pytest.mark.parametrize(
    ("octets", "code"), [(b"a = ", Code.INVALID_CONFIG), (b"\xff", Code.INVALID_CONFIG), (None, Code.NOT_FOUND)]
)
def test_what_is_no_file_of_ours(tmp_path: Path, octets: bytes | None, code: Code) -> None:
    path = tmp_path / "x.toml"
    if octets is not None:
        path.write_bytes(octets)
    with pytest.raises(ZaibeiError) as caught:
        load_config(path)
    assert caught.value.code is code


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([key.name for section in SECTIONS.values() for key in section.keys]) | st.text(max_size=8)


@given(
    st.dictionaries(
        st.sampled_from(list(SECTIONS)),
        VALUES | st.dictionaries(KEYS, VALUES, max_size=4) | st.lists(st.dictionaries(KEYS, VALUES)),
    )
)
def test_no_table_breaks_the_check(root: dict[str, Any]) -> None:
    try:
        check(root, "test.toml", Surroundings(Path("/srv/z"), "h", True, read_file))
    except ConfigError as exc:
        assert exc.faults


def test_files_of_https_go_together_and_are_read() -> None:
    def read(path: Path, secret: bool) -> bytes:
        if path.name == "open.key" and secret:
            raise WrongError(f"{path} can be read by others", "chmod 600")
        return b"" if path.name == "empty.pem" else b"-----BEGIN"

    around = replace(AROUND, read_file=read)
    whole = {"https": ["127.0.0.1:0"], "https_certificate": "a.pem", "https_key": "a.key", "https_clients": "c.pem"}
    listen = good({"listen": whole}, around).listen
    assert [listen.https_certificate, listen.https_key, listen.https_clients] == [
        str(around.folder / name) for name in ("a.pem", "a.key", "c.pem")
    ]
    for wrong, path in (
        ({"https_key": None}, "listen.https_certificate"),
        ({"https_key": "open.key"}, "listen.https_key"),
        ({"https_clients": "empty.pem"}, "listen.https_clients"),
    ):
        given = {key: value for key, value in (whole | wrong).items() if value is not None}
        assert [at for at, _ in faults({"listen": given}, around)] == [path]


def test_where_security_events_go(tmp_path: Path) -> None:
    (tmp_path / "hook.secret").write_bytes(b"0123456789abcdef\n")
    (tmp_path / "hook.secret").chmod(0o600)
    around = Surroundings(tmp_path, "host-1", True, read_file)
    hook = {"webhook": "https://soc.example/zaibei", "webhook_secret_file": "hook.secret"}
    config = good({"security": {"syslog": ["tcp://[::1]:601"], **hook}}, around)
    assert config.security.syslog == ("tcp://[::1]:601",) and config.security.webhook is not None
    assert document(config)["security"]["webhook_secret_file"] == str(tmp_path / "hook.secret")
    assert not good({}).security.syslog and good({}).security.webhook is None


@pytest.mark.parametrize(
    ("security", "path"),
    [
        ({"syslog": ["file:///x"]}, "security.syslog"),
        ({"webhook": "https://soc.example"}, "security.webhook"),
        ({"webhook": "http://soc.example", "webhook_secret_file": "hook.secret"}, "security.webhook"),
        ({"webhook": "https://soc.example", "webhook_secret_file": "short"}, "security.webhook_secret_file"),
        ({"webhook": "https://soc.example", "webhook_secret_file": "none"}, "security.webhook_secret_file"),
        ({"webhook_ca_file": "hook.secret"}, "security.webhook_ca_file"),
    ],
)
def test_where_security_events_cannot_go(security: dict[str, Any], path: str, tmp_path: Path) -> None:
    for name, octets in (("hook.secret", b"0123456789abcdef"), ("short", b"x")):
        (tmp_path / name).write_bytes(octets)
        (tmp_path / name).chmod(0o600)
    found = faults({"security": security}, Surroundings(tmp_path, "host-1", True, read_file))
    assert [one for one, _ in found] == [path]


def test_limits_of_the_guard() -> None:
    limits = good({"guard": {"udp_calm_per_s": 0, "trusted": ["203.0.113.0/24"]}}).guard
    assert limits.udp_calm_per_s == 0 and limits.trusted == ("203.0.113.0/24",)
    assert [path for path, _ in faults({"guard": {"refused": ["203.0.113.1/24"], "identifier_per_s": -1}})] == [
        "guard.identifier_per_s",
        "guard.refused",
    ]
