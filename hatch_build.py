"""Build hook: compiles proto/ to Python and, where a C compiler exists, the one native module.

Runs in every build (wheel, sdist, editable). `python hatch_build.py` does the same in the tree and returns at once when nothing
changed; `make proto` and `make setup` use that.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO_STAMP = "replica/v1/.inputs"
PACKAGE_DOC = '"""Code generated from proto/; do not edit."""\n'


class CustomBuildHook(BuildHookInterface[Any]):
    """Entry point that hatchling looks for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        build_protos(root)
        if build_native(root) and self.target_name == "wheel":
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def build_protos(root: Path) -> list[Path]:
    """Compile proto/**/*.proto into the packages that their paths name.

    Args:
        root: the project's directory.
    Returns:
        Generated files, sorted; empty when there is no .proto yet.
    Raises:
        SystemExit: protoc refused a file; its own message was printed.
    """
    sources = sorted((root / "proto").rglob("*.proto"))
    if not sources:
        return []
    digest = digest_of([*sources, root / "pyproject.toml", root / "hatch_build.py"], root)
    outputs = outputs_if_current(root, digest)
    if outputs:
        return outputs
    with tempfile.TemporaryDirectory(dir=root, prefix=".proto-") as scratch:
        run_protoc(root / "proto", sources, Path(scratch))
        outputs = install_outputs(Path(scratch), root)
    lines = [digest, *(str(path.relative_to(root)) for path in outputs)]
    replace_text(root / PROTO_STAMP, "\n".join(lines) + "\n")
    return outputs


def outputs_if_current(root: Path, digest: str) -> list[Path]:
    """Return the outputs of the last run if its inputs were these and all of them still exist; otherwise nothing."""
    stamp = root / PROTO_STAMP
    if not stamp.exists():
        return []
    made_from, *names = stamp.read_text().splitlines()
    outputs = [root / name for name in names]
    return outputs if made_from == digest and all(path.exists() for path in outputs) else []


def run_protoc(include: Path, sources: list[Path], out: Path) -> None:
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{include}", f"-I{well_known}"]
    command += [f"--python_out={out}", f"--grpc_python_out={out}"]
    for plugin in ("mypy", "mypy_grpc"):
        command += [f"--plugin=protoc-gen-{plugin}={find_tool(f'protoc-gen-{plugin}')}", f"--{plugin}_out=quiet:{out}"]
    command += [str(path) for path in sources]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit("proto: protoc refused a file (see above)")


def find_tool(name: str) -> str:
    """Find a script of the build environment, whether or not its bin directory is on PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        raise SystemExit(f"proto: {name} is missing; run `make setup`")
    return found


def install_outputs(scratch: Path, root: Path) -> list[Path]:
    """Move what changed into place, file by file and atomically, so that a running test never meets half a package."""
    made = sorted(path.relative_to(scratch) for path in scratch.rglob("*.py*"))
    packages = sorted({path.parent for path in made})
    for package in packages:
        target = root / package
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob("*_pb2*.py*"):
            if package / old.name not in made:
                old.unlink()
        replace_text(target / "__init__.py", PACKAGE_DOC)
    for path in made:
        replace_text(root / path, (scratch / path).read_text())
    return [root / package / "__init__.py" for package in packages] + [root / path for path in made]


def replace_text(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(text)
    fresh.replace(path)


def build_native(root: Path) -> Path | None:
    """Compile replica/native when that is possible; without it the pure-Python twin serves.

    Args:
        root: the project's directory.
    Returns:
        The shared library, or None when there is nothing to compile or nothing to compile it with (said in one line).
    """
    recipe = root / "replica/native/build.py"
    if not recipe.exists():
        return None
    spec = importlib.util.spec_from_file_location("zaibei_native_build", recipe)
    if spec is None or spec.loader is None:
        raise SystemExit(f"native: cannot load {recipe}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with warnings.catch_warnings(record=True) as said:
        library: Path | None = module.build()  # keeps its own stamp and returns at once when nothing changed
    for warning in said:
        sys.stderr.write(f"native: {warning.message}\n")
    return library


def digest_of(paths: Iterable[Path], root: Path) -> str:
    total = hashlib.sha256()
    for path in paths:
        body = path.read_bytes()
        total.update(f"{path.relative_to(root)} {len(body)}\n".encode() + body)
    return total.hexdigest()


if __name__ == "__main__":
    project = Path(__file__).resolve().parent
    build_protos(project)
    if "--proto" not in sys.argv[1:]:
        build_native(project)
