"""A process whose calls the fault shim meets: does what its input asks, one line a request, one line an answer."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path


def answer(words: list[str]) -> object:
    match words:
        case ["sync", name]:
            with Path(name).open("ab") as file:
                file.write(b"x")
                file.flush()
                began = time.monotonic()
                os.fsync(file.fileno())
                return f"ok {int((time.monotonic() - began) * 1000)}"
        case ["make", name]:
            Path(name).mkdir()
        case ["rename", name, to]:
            os.rename(name, to)
        case ["unlink", name]:
            os.unlink(name)
        case ["clock"]:
            return int(time.time() * 1000)
        case ["wait", seconds]:
            began = time.monotonic()
            threading.Event().wait(float(seconds))
            time.sleep(float(seconds))
            return f"{time.monotonic() - began:.3f}"
    return "ok"


for line in sys.stdin:
    try:
        print(answer(line.split()), flush=True)
    except OSError as exc:
        print(f"errno {exc.errno}", flush=True)
