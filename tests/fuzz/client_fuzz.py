"""Atheris over whatever asks and what operators type at: `python tests/fuzz/client_fuzz.py -runs=50000`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(include=["hosting.client", "chaos.standin", "ops.admin", "replica.model", "replica.takeover"]):
    from tests.fuzz.client_target import Target, seeds


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, octets in enumerate(seeds()):
            (Path(corpus) / f"{number}").write_bytes(octets)
        atheris.Setup([*sys.argv, corpus], Target())
        atheris.Fuzz()


if __name__ == "__main__":
    main()
