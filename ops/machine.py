"""What a member asks of its machine before it starts: folder, lock, open files, ports. Each refusal says what to do."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from dataclasses import dataclass
from pathlib import Path

from ops.config import Address, Limits, Listen
from ops.config.check import TRANSPORTS
from replica.model.errors import Code, ZaibeiError

OPEN_FILES_OWN = 256  # journal, sockets, libraries
SHARED_BY_FRONTS = ("handle", "http", "https", "grpc")  # bound with SO_REUSEPORT when fronts are separate processes
LOCK_OCTETS_MAX = 64


def prepare_folder(data: Path) -> None:
    """Make the data folder, only for its user. Raises ZaibeiError when it cannot be made or written."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = data / ".write"
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600)
        os.close(handle)
        probe.unlink()
    except OSError as exc:
        raise _folder_error(data, exc) from exc


def _folder_error(data: Path, exc: OSError) -> ZaibeiError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return ZaibeiError(Code.DISK_FULL, f"no room left for {data}. Next: make room; all data is safe", retry=True)
    if exc.errno in (errno.EEXIST, errno.ENOTDIR):
        return ZaibeiError(Code.INVALID_CONFIG, f"{data} is no folder. Next: name another one with --data or [member] data")
    return ZaibeiError(
        Code.NOT_AUTHORISED,
        f"cannot write in {data}: {exc.strerror}. Next: give it to this user, or name another folder with --data",
    )


@dataclass(slots=True)
class FolderLock:
    """Exclusive hold of a data folder; the kernel lets go of it when the process ends, however it ends."""

    path: Path
    _handle: int = -1

    def take(self) -> None:
        """Raises ZaibeiError(CONFLICT): another process has it; names the process."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, LOCK_OCTETS_MAX).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise ZaibeiError(
                Code.CONFLICT,
                f"process {holder} already runs on {self.path.parent}. Next: `zaibei status --data {self.path.parent}`, "
                "`zaibei stop`, or another folder with --data",
            ) from None
        except OSError as exc:
            os.close(handle)
            raise ZaibeiError(
                Code.INVALID_CONFIG, f"{self.path.parent} cannot be locked ({exc.strerror}). Next: put the data on a local disk"
            ) from exc
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle

    def release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def is_free(self) -> bool:
        """True when nobody holds it at this moment."""
        try:
            handle = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True


def raise_open_files(limits: Limits) -> str:
    """Allow this process the files it needs.

    Returns:
        A note for the log when fewer client connections fit than configured; otherwise empty.
    Raises:
        ZaibeiError(INVALID_CONFIG): not even the stores' files fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = limits.open_files + OPEN_FILES_OWN
    wanted = least + limits.connections_max
    ceiling = wanted if hard == resource.RLIM_INFINITY else hard
    if ceiling < least:
        raise ZaibeiError(
            Code.INVALID_CONFIG,
            f"this machine allows {ceiling} open files, the stores need {least}. "
            "Next: raise it (`ulimit -Hn`, LimitNOFILE= in the unit), or lower [limits] open_files",
        )
    if soft < wanted and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, ceiling), hard))
    if ceiling < wanted:
        return f"only {ceiling - least} client connections fit into the machine's {ceiling} open files"
    return ""


def check_ports(listen: Listen) -> None:
    """Try every address before anything starts, so that all that are taken are told at once.

    Raises:
        ZaibeiError(CONFLICT, NOT_AUTHORISED or INVALID_CONFIG): lists each with what to do.
    """
    faults: list[tuple[Code, str]] = []
    for name, transports in TRANSPORTS.items():
        for address in getattr(listen, name):
            for transport in transports:
                fault = _try(address, transport, share=listen.fronts > 0 and name in SHARED_BY_FRONTS)
                if fault is not None and address.port:
                    faults.append((fault[0], f"[listen] {name}: {address} ({transport}) {fault[1]}"))
    if faults:
        raise ZaibeiError(
            faults[0][0],
            "cannot listen:\n" + "\n".join(f"  {text}" for _, text in faults) + "\nNext: another member on this machine? "
            "`zaibei stop` it, or give this one other ports (`zaibei config example`)",
        )


def _try(address: Address, transport: str, *, share: bool) -> tuple[Code, str] | None:
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    try:
        with socket.socket(family, kind) as probe:
            if transport == "tcp":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address.is_ipv6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if share:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind((address.host, address.port))
    except OSError as exc:
        match exc.errno:
            case errno.EADDRINUSE:
                return Code.CONFLICT, f"is in use (`ss -ltunp 'sport = :{address.port}'` shows by whom)"
            case errno.EACCES | errno.EPERM:
                return Code.NOT_AUTHORISED, "is not allowed for this user: ports below 1024 need CAP_NET_BIND_SERVICE"
            case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
                return Code.INVALID_CONFIG, "is no address of this machine"
        raise
    return None
