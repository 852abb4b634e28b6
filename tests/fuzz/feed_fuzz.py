"""Atheris over every message handler of the feed: `python tests/fuzz/feed_fuzz.py -runs=50000`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(include=["replica.feed", "replica.model"]):
    from tests.fuzz.feed_target import Target, seeds


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, octets in enumerate(seeds()):
            (Path(corpus) / f"{number}").write_bytes(octets)
        atheris.Setup([*sys.argv, corpus], Target())
        atheris.Fuzz()


if __name__ == "__main__":
    main()
