"""Coverage-guided fuzzing of the Handle codec: `python tests/fuzz/handle_fuzz.py -runs=200000`.

Starts from the golden vectors; stops at the first octets that raise anything but ProtocolFault. Arguments are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(include=["replica.model.handle", "replica.native.twin"]):
    from tests.fuzz.handle_target import exercise

from replica.model.handle import values
from tests.unit.handle.golden import OCTETS, TEXT

MESSAGE_OCTETS_MAX = 2_048


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        seeds = [*OCTETS.values(), *(text.encode() for name, text in TEXT.items() if name.endswith("_json"))]
        seeds.append(values.encode_record([values.decode_value(OCTETS["value_url"])], b"88.118.8/Xyz"))
        for number, seed in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], f"-max_len={MESSAGE_OCTETS_MAX}", *sys.argv[1:], corpus], exercise)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
