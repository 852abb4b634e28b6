"""`zaibei up` and `zaibei stop`: everything around a member but its composition, which is ops/up.py."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import shlex
import signal
import sys
import time
from typing import Any

import click

from ops.cli.style import Console, admin, effective, styled, target_options
from ops.config import Effective
from ops.config.edge_load import EMBEDDED
from ops.config.values import LOCK_FILE
from ops.fronts import end_left_behind
from ops.logs import set_up_logging
from ops.machine import FolderLock, check_ports, prepare_folder, raise_open_files
from ops.metrics import new_registry
from ops.pki.edge_own import own_identity
from ops.seat import Bound, Run, Seat
from replica.model.edge_identity import Identity
from replica.model.errors import Code, ZaibeiError

COMPOSITION = "ops.up"
STOP_S_MAX = 20.0
STOP_POLL_S = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ABOUT = {
    "handle": "Handle protocol, UDP and TCP",
    "http": "JSON API",
    "https": "JSON API over TLS",
    "grpc": "gRPC",
    "feed": "sources push here (mutual TLS)",
    "beats": "beats of armed sources (UDP)",
    "enrol": "one-time tokens, renewal (TLS)",
    "cluster": "links between the members (mutual TLS)",
    "registration": "registrars of hosted and taken-over sources (mutual TLS)",
    "metrics": "Prometheus, /metrics",
}

log = logging.getLogger("zaibei.ops")


@click.command()
@target_options
@click.option(
    "--log", "kind", type=click.Choice(["text", "json"]), help="How log lines are written; overrides the configuration."
)
@styled
def up(console: Console, kind: str | None) -> None:
    """Start a member and stay in the foreground; Ctrl-C or SIGTERM stops it in order.

    Without a configuration everything is on loopback, IPv4 and IPv6, with data in ./zaibei-data. The first start makes the
    member's identity. It prints what it listens on once it answers; with --json that is one line.

    \b
    Examples:
      zaibei up                                    begin here
      zaibei config example > zaibei.toml          then edit, and
      zaibei up --config zaibei.toml --log json    as a service
      zaibei up --data /srv/zaibei
    """
    found = effective()
    run_member(console, found, kind or found.config.member.log)


def run_member(console: Console, found: Effective, log_kind: str, run: Run | None = None) -> None:
    """Run one member until it is told to stop.

    Args:
        run: the composition; ops.up.run where None.
    Raises:
        ZaibeiError, OSError: it could not start, or had to stop.
    """
    config = found.config
    set_up_logging(log_kind, config.member.log_level)
    prepare_folder(config.member.data)
    lock = FolderLock(config.member.lock_file)
    lock.take()
    try:
        notes = [*config.notes, raise_open_files(config.limits)]
        if not config.listen.fronts:
            end_left_behind(config.member.data)
        check_ports(config.listen)
        identity = own_identity(config)
        for note in filter(None, notes):
            log.warning(note)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_until_stopped(console, found, identity, run or importlib.import_module(COMPOSITION).run))
    finally:
        lock.release()


def _loop_factory() -> Any:
    try:
        return importlib.import_module("uvloop").new_event_loop
    except ModuleNotFoundError:
        return None


async def _until_stopped(console: Console, found: Effective, identity: Identity, run: Run) -> None:
    stop = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, _told_to_stop, stop, signal.Signals(number).name)
    seat = Seat(
        ready=lambda bound: show_ready(console, found, identity, bound),
        stop=stop,
        registry=new_registry("member"),
        started_ms=time.time_ns() // 1_000_000,
        origin=found.origin,
        notes=found.config.notes,
    )
    work = asyncio.ensure_future(run(found.config, identity, seat))
    told = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, told}, return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait({work}, timeout=STOP_S_MAX)
        if not done:
            log.error(
                "not stopped in time, ending hard: what was acknowledged is on disk", extra={"fields": {"limit_s": STOP_S_MAX}}
            )
            sys.stderr.flush()
            os._exit(1)  # threads of libraries may hang; every start recovers as after a crash
        await work
        log.info("stopped")
    finally:
        told.cancel()


def _told_to_stop(stop: asyncio.Event, name: str) -> None:
    if stop.is_set():
        log.warning("told twice, ending at once: what was acknowledged is on disk")
        sys.stderr.flush()
        os._exit(1)
    log.info("stopping", extra={"fields": {"signal": name}})
    stop.set()


def show_ready(console: Console, found: Effective, identity: Identity, bound: Bound) -> None:
    """The ready block: what listens where, who we are, what to do next."""
    config = found.config
    addresses = {name: [str(address) for address in listened] for name, listened in bound.items()}
    document = {
        "event": "ready",
        "member": config.member.name,
        "pid": os.getpid(),
        "data": str(config.member.data),
        "origin": found.origin,
        "fingerprint": identity.fingerprint,
        "addresses": addresses,
        "sources": [source.name for source in config.sources],
    }
    lines = [f"{config.member.name} is up: process {os.getpid()}, data in {config.member.data}, configuration: {found.origin}"]
    lines += [
        f"  {name:<8} {' '.join(listened):<34} {ABOUT.get(name, '')}".rstrip() for name, listened in addresses.items() if listened
    ]
    lines += [f"  identity {identity.fingerprint}", "", "Next:"]
    where = _target_words(found)
    if config.sources:
        lines += [f"  zaibei status{where} --watch"]
        lines += (
            [f"  zaibei resolve {config.sources[0].prefixes[0]}/NAME --server {addresses['handle'][0]}"]
            if addresses.get("handle")
            else []
        )
    else:
        lines += [f"  zaibei status{where}", f"  zaibei identity show{where}    what a source pins before it may push here"]
        lines += ["  zaibei config example    then add a [[source]] block; the member reads it at its next start"]
    console.answer(document, "\n".join(lines))


def _target_words(found: Effective) -> str:
    """The options with which other commands find this member; none where they find it by themselves."""
    words = "" if found.origin == EMBEDDED else f" --config {shlex.quote(found.origin)}"
    return words + (
        f" --data {shlex.quote(str(found.config.member.data))}" if found.origins.get("member.data") == "--data" else ""
    )


@click.command()
@target_options
@styled
def stop(console: Console) -> None:
    """Stop a running member in order, and wait until it is gone.

    Nothing that was acknowledged is lost, even by `kill -9`; this merely saves the next start some replay.

    \b
    Example:
      zaibei stop --data ./zaibei-data
    """
    client = admin()
    answer = client.stop()
    client.close()
    lock = FolderLock(client.path.parent / LOCK_FILE)
    deadline = time.monotonic() + STOP_S_MAX
    while not lock.is_free():
        if time.monotonic() > deadline:
            raise ZaibeiError(
                Code.UNKNOWN, f"process {answer.pid} was told to stop but still runs. Next: look at its log", definite=False
            )
        time.sleep(STOP_POLL_S)
    console.answer(
        {"member": answer.member, "pid": answer.pid, "stopped": True}, f"{answer.member} (process {answer.pid}) has stopped."
    )
