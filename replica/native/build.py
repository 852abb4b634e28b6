"""Builds the C backend with cffi; without a compiler the Python twin is used. Run by the build hook: `build()`."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "csrc"
MODULE = "_native"

# Every cffi call normally lets go of the interpreter lock. Our calls take 0.1 to 500 µs: giving the lock away costs more than
# the short ones do, and getting it back from a busy thread costs up to 5 ms, which an answer cannot afford. So they keep it.
KEEP_THE_LOCK = """
#undef Py_BEGIN_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS {
#undef Py_END_ALLOW_THREADS
#define Py_END_ALLOW_THREADS }
#include "native.h"
"""


def compiler() -> str | None:
    """The C compiler's command, or None."""
    configured = (os.environ.get("CC"), sysconfig.get_config_var("CC"))
    names = [str(command or "").partition(" ")[0] for command in configured]
    return next((name for name in (*names, "cc", "gcc", "clang") if name and shutil.which(name)), None)


def _stamp() -> str:
    """Names what the output depends on: sources, this file, interpreter ABI, machine."""
    digest = hashlib.sha256(f"{sys.implementation.cache_tag} {sysconfig.get_config_var('SOABI')} {platform.machine()}".encode())
    for path in [Path(__file__), *sorted(SOURCES.iterdir())]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def build(*, force: bool = False, extra_flags: tuple[str, ...] = ()) -> Path | None:
    """Compile the native module beside this file.

    Args:
        force: compile although the output is newer than its sources.
        extra_flags: for the compiler and the linker (a sanitizer run).
    Returns:
        The shared library, or None when there is no working compiler (said in one warning): the twin then serves.
    """
    if compiler() is None:
        warnings.warn("no C compiler found, so the slower pure-Python twin of the native module serves", stacklevel=2)
        return None
    target = HERE / f"{MODULE}{sysconfig.get_config_var('EXT_SUFFIX')}"
    stamp_file = target.with_suffix(".stamp")
    stamp = " ".join((_stamp(), *extra_flags))
    if target.exists() and not force and stamp_file.exists() and stamp_file.read_text() == stamp:
        return target
    with tempfile.TemporaryDirectory(prefix="zaibei-native-") as scratch:
        try:
            output = _compile(scratch, extra_flags)
        except (ImportError, OSError, RuntimeError) as exc:  # no setuptools, no Python headers, another machine's compiler
            warnings.warn(f"the C module does not compile, so the slower pure-Python twin serves ({exc})", stacklevel=2)
            return None
        staged = HERE / f".{target.name}.{os.getpid()}"
        shutil.copyfile(output, staged)
    os.replace(staged, target)  # never written in place: a running process has the old one mapped
    stamp_file.write_text(stamp)
    return target


def _compile(scratch: str, extra_flags: tuple[str, ...]) -> Path:
    from cffi import FFI, VerificationError  # here, so that a machine without cffi can still ask

    ffi = FFI()
    ffi.cdef((SOURCES / "api.h").read_text())
    ffi.set_source(
        MODULE,
        KEEP_THE_LOCK,
        sources=[str(path) for path in sorted(SOURCES.glob("*.c"))],
        include_dirs=[str(SOURCES)],
        extra_compile_args=[
            "-O2",
            "-std=gnu99",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-fvisibility=hidden",
            *extra_flags,
        ],
        extra_link_args=list(extra_flags),
    )
    try:
        return Path(ffi.compile(tmpdir=scratch, verbose=False))
    except VerificationError as exc:
        reason = str(exc).replace("\n", " ")
        raise RuntimeError(f"{reason[:60]}...{reason[-60:]}" if len(reason) > 130 else reason) from exc


if __name__ == "__main__":
    sys.stdout.write(f"{build(force='--force' in sys.argv)}\n")
