"""The peer: three etcd processes of our own in the benchmark's folder, on loopback, where etcd is installed; fsync is on."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.bench.edge_member import free_ports
from ops.bench.edge_process import die_with_parent

MEMBERS = 3
START_S_MAX = 30.0
COMMAND_S_MAX = 10.0
HEARTBEAT_MS, ELECTION_MS = 40, 200  # as tuned to our own election time; etcd's least ratio is 5
QUOTA_OCTETS = 8 * 2**30  # its largest; the default of 2 GiB would fill in a long run


class Etcd:
    """See the module.

    Args:
        tuned: heartbeat and election time as ours; False: etcd's defaults (100 and 1,000 ms).
    """

    name = "etcd"

    def __init__(self, folder: Path, *, tuned: bool) -> None:
        self._folder, self._tuned = folder, tuned
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        ports = free_ports(2 * MEMBERS)
        self.clients = {number: ports[number - 1] for number in range(1, MEMBERS + 1)}
        self._peers = {number: ports[MEMBERS + number - 1] for number in range(1, MEMBERS + 1)}
        said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, timeout=COMMAND_S_MAX, check=True).stdout
        found = re.search(r"\d+\.\d+\.\d+", said)
        self.name = f"etcd {found.group() if found else '?'}"

    def start(self) -> None:
        for number in self.clients:
            self.up(number)
        self.leader()

    def up(self, number: int) -> None:
        """Start a member."""
        together = ",".join(f"e{one}=http://127.0.0.1:{port}" for one, port in self._peers.items())
        client, peer = f"http://127.0.0.1:{self.clients[number]}", f"http://127.0.0.1:{self._peers[number]}"
        argv = [
            "etcd", "--name", f"e{number}", "--data-dir", str(self._folder / f"e{number}"), "--initial-cluster", together,
            "--initial-cluster-state", "new", "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--quota-backend-bytes", str(QUOTA_OCTETS),
            "--log-level", "error",
        ]  # fmt: skip
        if self._tuned:
            argv += ["--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout", str(ELECTION_MS)]
        with (self._folder / "etcd.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                argv, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
            )

    def kill(self, number: int) -> None:
        """SIGKILL."""
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    def leader(self) -> int:
        """Number of the member that leads. Raises RuntimeError: none within START_S_MAX."""
        until = time.monotonic() + START_S_MAX
        while time.monotonic() < until:
            for number in self._processes:
                if self._leads(number):
                    return number
            time.sleep(0.1)
        raise RuntimeError(f"etcd has no leader: {(self._folder / 'etcd.log').read_text(errors='replace')[-2_000:]}")

    def _leads(self, number: int) -> bool:
        argv = ["etcdctl", "--endpoints", f"127.0.0.1:{self.clients[number]}", "endpoint", "status", "-w", "fields"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False, env=_env())
        fields = dict(re.findall(r'"(\w+)" : (\d+)', done.stdout))
        return bool(fields) and fields.get("Leader") == fields.get("MemberID")

    def healthy(self) -> bool:
        """All members answer."""
        ports = ",".join(f"127.0.0.1:{port}" for port in self.clients.values())
        argv = ["etcdctl", "--endpoints", ports, "endpoint", "health"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False, env=_env())
        return done.returncode == 0

    def stop(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(START_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _env() -> dict[str, str]:
    return {"ETCDCTL_API": "3", "PATH": "/usr/local/bin:/usr/bin:/bin"}


@contextmanager
def etcd_if_installed(folder: Path, *, tuned: bool = False) -> Iterator[Etcd | None]:
    """A running cluster; None: etcd and etcdctl are not installed."""
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        yield None
        return
    folder.mkdir()
    made = Etcd(folder, tuned=tuned)
    try:
        made.start()
        yield made
    finally:
        made.stop()
