"""`zaibei config check` of a member that belongs to a cluster: what `zaibei up` would refuse is told before."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from ops.cli.main import cli
from ops.cluster.edge_begin import PKI_FOLDER, begin_cluster


def test_a_member_of_a_cluster_must_name_the_ca(tmp_path: Path) -> None:
    file = tmp_path / "zaibei.toml"
    file.write_text('[member]\nname = "centre-1"\n[listen]\nhandle = ["127.0.0.1:0"]\n', encoding="utf-8")
    words = ["config", "check", "--config", str(file), "--json"]
    assert json.loads(CliRunner().invoke(cli, words).output)["ok"] is True
    begin_cluster(tmp_path / "zaibei-data", "centre-1", ("127.0.0.1:2646",), None)
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 2
    [fault] = json.loads(told.output)["faults"]
    assert fault["path"] == "pki" and f"zaibei-data/{PKI_FOLDER}" in fault["instead"]
    file.write_text(file.read_text("utf-8") + '[pki]\nfolder = "zaibei-data/pki"\n', encoding="utf-8")
    assert json.loads(CliRunner().invoke(cli, words).output)["ok"] is True
