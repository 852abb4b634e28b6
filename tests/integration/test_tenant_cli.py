"""`zaibei tenant` against `zaibei up`: from a source of the configuration to a tenant: rights, quota, import, export, audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.integration.test_register_cli import Up, folder, run, ups

__all__ = ["folder", "ups"]  # fixtures


def check_export(tenant: Callable[..., tuple[int, Any]], out: Path) -> None:
    """All that the tenant owns, with a sum over it, in a file that is never overwritten."""
    code, exported = tenant("export", "region-9", "--out", str(out))
    assert code == 0
    *lines, last = out.read_bytes().splitlines(keepends=True)
    assert json.loads(last)["sha256"] == sha256(b"".join(lines)).hexdigest() == exported["export"]["sha256"]
    told = [json.loads(line) for line in lines[1:]]
    names = {one["handle"] for one in told if "handle" in one}
    assert names == {"88.118.9/before", "88.118.9/a", "88.118.9/b", "88.118.9/c"}
    assert {one["document"] for one in told if "document" in one} == {f"hosting.{kind}" for kind in
                                                                       ("tenant", "person", "key", "right", "quota")}  # fmt: skip
    assert tenant("export", "region-9", "--out", str(out))[0] == 7


def test_a_tenants_year(folder: Path, ups: list[Up]) -> None:
    config = ["--config", str(folder / "zaibei.toml")]
    client = ["--server", ups[-1].addresses[0], "--identity", str(folder / "registrar"),
              "--member-file", str(folder / "zaibei-data" / "identity" / "certificate.pem")]  # fmt: skip
    why = ["--why", "contract 17", "--by", "li.wei"]

    def tenant(*words: str) -> tuple[int, Any]:
        return run("tenant", *words, *config)

    def put(name: str) -> tuple[int, Any]:
        return run("register", "put", name, "--value", "URL=x", *client)

    code, listed = tenant("list")
    assert code == 0 and [(one["source"], one["state"]) for one in listed["tenants"]] == [("region-9", "none")]
    assert put("88.118.9/before")[0] == 0  # the configuration alone says who registers
    assert tenant("adopt", "region-9", *why)[0] == 4  # it lives here
    assert tenant("create", "region-9", "--title", "Region 9", *why)[1]["done"]["changed"] is True
    assert tenant("create", "region-9", "--title", "Region 9", *why)[1]["done"]["changed"] is False
    assert put("88.118.9/a")[0] == 3  # no right so far

    mine = run("register", "identity", "--name", "tenant-9", "--identity", str(folder / "registrar"))[1]["fingerprint"]
    person = "300:88.118.9/li"
    documents = [
        ("person", person, {"title": "Li Wei"}),
        ("key", mine, {"person": person}),
        ("right", "r1", {"who": person, "operations": ["create", "modify"], "under": "88.118.9"}),
        ("quota", "tenant", {"identifiers": 4}),
    ]
    for kind, ident, body in documents:
        assert tenant("set", "region-9", kind, ident, "--json-body", json.dumps(body), *why)[0] == 0, kind
    assert tenant("set", "region-9", "right", "r2", "--json-body", '{"who": "nobody"}', *why)[0] == 2
    assert put("88.118.9/a")[0] == 0
    assert run("register", "delete", "88.118.9/a", *client)[0] == 3

    rows = folder / "names.csv"
    rows.write_text("identifier,URL\n88.118.9/b,x\n88.118.9/c,x\n88.118.9/d,x\n88.119/e,x\n")
    assert run("tenant", "import", str(rows), "--dry-run", *client)[1]["import"]["done"] == 4
    code, done = run("tenant", "import", str(rows), *client)
    assert code == 9 and (done["import"]["done"], done["import"]["rejected"]) == (2, 2)
    why_not = [json.loads(line)["code"] for line in Path(done["import"]["rejected_file"]).read_text().splitlines()]
    assert why_not == ["over_quota", "not_owner"]

    code, plan = tenant("suspend", "region-9", "--why", "unpaid", "--by", "li.wei")
    assert code == 0 and put("88.118.9/a")[0] == 0  # a plan changes nothing
    assert tenant("suspend", "region-9", "--why", "other", "--plan", plan["plan"]["token"], "--by", "li.wei")[0] == 4
    assert tenant("suspend", "region-9", "--why", "unpaid", "--plan", plan["plan"]["token"], "--by", "li.wei")[0] == 0
    assert put("88.118.9/a")[0] == 4
    assert run("register", "get", "88.118.9/a", *client)[0] == 0

    code, sites = tenant("sites", "region-9")
    assert code == 0 and sites["sites"]["enterprises"] == [] and sites["sites"]["interval_s"] == 60
    assert tenant("sites", "region-8")[0] == 6
    check_export(tenant, folder / "region-9.jsonl")

    assert tenant("resume", "region-9", *why)[0] == 0 and put("88.118.9/a")[0] == 0
    for step, expected in (("review", 4), ("applied", 0), ("review", 0), ("granted", 0), ("in_effect", 0), ("applied", 4)):
        assert tenant("enterprise", "region-9", "88.118.9.1", step, "--title", "Works", *why)[0] == expected, step
    assert tenant("enterprise", "region-9", "88.119.1", "applied", *why)[0] == 3

    ups[-1].kill()
    ups.append(Up(folder))
    code, shown = tenant("show", "region-9")
    assert code == 0 and shown["tenant"]["state"] == "active" and len(shown["tenant"]["documents"]) == 6
    check_audit(folder)
    check_refusals(folder, ups, lambda: run("register", "delete", "88.118.9/a", "--server", ups[-1].addresses[0], *client[2:])[0])


def check_audit(folder: Path) -> None:
    """Who changed the tenant's documents and why: sealed where it lies, masked when shown, told for a reason."""
    config = ["--config", str(folder / "zaibei.toml")]
    code, audit = run("audit", "list", "region-9", "--kind", "registration", *config)
    assert code == 0 and {one["what"] for one in audit["records"]} == {"the tenant's documents are changed"}
    told = json.dumps(audit, ensure_ascii=False)
    assert "li.wei" not in told and "contract" not in told and "unpaid" not in told
    assert run("audit", "list", "region-9", "--who", "li.wei", *config)[1]["records"] == audit["records"], "found, and masked"
    assert run("audit", "list", "region-9", "--reveal", *config)[0] == 2
    reason = ["--reveal", "--by", "zhao", "--why", "case 17"]
    code, audit = run("audit", "list", "region-9", "--kind", "registration", *reason, *config)
    acts = [(one["who"], one["why"]) for one in audit["records"] if "tenant/region-9" in one["what"]]
    assert acts == [(["li.wei"], "contract 17"), (["li.wei"], "unpaid"), (["li.wei"], "contract 17")]
    out = folder / "region-9.audit"
    assert run("audit", "export", "region-9", "--out", str(out), *config)[0] == 0
    assert not any(word in out.read_bytes() for word in (b"li.wei", b"contract", b"unpaid")), "encrypted where it lies"


def check_refusals(folder: Path, ups: list[Up], refused: Callable[[], int]) -> None:
    """What a member refused is in an audit of its own, after it was stopped and started too."""
    config = ["--config", str(folder / "zaibei.toml")]
    assert run("audit", "list", "denials", *config)[0] == 0
    assert [refused() for _ in range(3)] == [3, 3, 3]
    ups[-1].stop()
    ups.append(Up(folder))
    denials = ["audit", "list", "denials", "--kind", "denial"]
    code, audit = run(*denials, "--text", "region-9", *config)
    found = audit["records"]
    assert code == 0 and len(found[-1]["who"][0]) == len("sha256:0000…") and found[-1]["why"] == "no right"
    assert sum(one["evidence"]["count"] for one in found) >= 3
    whole = run(*denials, "--reveal", "--by", "zhao", "--why", "case 18", *config)[1]["records"][-1]["who"][0]
    assert whole.startswith(found[-1]["who"][0][:-1]) and len(whole) > 64
    assert run(*denials, "--who", whole, *config)[1]["records"][-1] == found[-1]
    reveals = run("audit", "list", "denials", "--kind", "reveal", "--who", "zhao", *config)[1]["records"]
    assert [one["evidence"]["group"] for one in reveals] == ["region-9", "denials"], "who looked is kept too"
    for path in (folder / "zaibei-data").glob("denials*"):
        assert whole.encode() not in path.read_bytes() and b"zhao" not in path.read_bytes(), "encrypted at rest"
    code, audit = run("audit", "list", "denials", "--last", "1000", *config)
    out = folder / "denials.audit"
    assert run("audit", "export", "denials", "--out", str(out), *config)[0] == 0
    certificate = folder / "zaibei-data" / "identity" / "certificate.pem"
    words = ["--trust", str(certificate), "--head", audit["head"]]
    code, verdict = run("audit", "verify", str(out), *words)
    assert code == 0 and verdict["records"] == len(audit["records"])
    assert verdict["words"] == {"sealed": verdict["records"], "opened": 0} and whole.encode() not in out.read_bytes()
    code, verdict = run("audit", "verify", str(out), *words, "--key", str(certificate.with_name("audit.key")))
    assert code == 0 and verdict["words"] == {"sealed": verdict["records"], "opened": verdict["records"]}
