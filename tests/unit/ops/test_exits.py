"""Every trouble ends in a documented exit code, and no operating error shows a traceback."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import click
import pytest

from ops.cli.exits import MEANING, OF_CODE, Exit, of_exception, of_trouble
from ops.cli.style import guarded
from replica.model.errors import Code, InvariantBroken, Trouble, ZaibeiError


def test_codes_are_the_contract() -> None:
    assert {int(code) for code in Exit} == {0, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12}
    assert set(MEANING) == set(Exit)


def test_every_code_has_its_exit() -> None:
    assert set(OF_CODE) == set(Code)
    assert (OF_CODE[Code.NOT_AUTHORISED], OF_CODE[Code.REFUSED], OF_CODE[Code.WOULD_LOSE_DATA]) == (3, 4, 12)


@pytest.mark.parametrize("code", list(Code))
def test_an_unknown_outcome_is_unknown_whatever_its_code(code: Code) -> None:
    assert of_trouble(Trouble(code, "x", definite=False)).exit is Exit.UNKNOWN


@pytest.mark.parametrize(
    ("number", "exit_"),
    [
        (errno.ENOSPC, 1),
        (errno.EACCES, 3),
        (errno.EADDRINUSE, 7),
        (errno.ECONNREFUSED, 8),
        (errno.EADDRNOTAVAIL, 2),
        (errno.EMFILE, 8),
    ],
)
def test_errors_of_the_system(number: int, exit_: int) -> None:
    failure = of_exception(OSError(number, "Some words", "file"))
    assert failure is not None and failure.exit == exit_ and "Next:" in failure.message and "file: some words" in failure.message


def test_groups_are_operating_errors_only_when_all_of_them_are() -> None:
    ours = ZaibeiError(Code.BUSY, "later")
    assert of_exception(ExceptionGroup("x", [ours, TimeoutError()])) is not None
    assert of_exception(ExceptionGroup("x", [ours, ValueError("bug")])) is None
    assert of_exception(InvariantBroken("bug")) is None


def raising(exc: BaseException) -> None:
    raise exc


@pytest.mark.parametrize(
    ("exc", "exit_", "code"),
    [
        (ZaibeiError(Code.NOT_FOUND, "gone. Next: look"), 6, "not_found"),
        (OSError(errno.ENOSPC, "No space left"), 1, "disk_full"),
        (click.UsageError("wrong"), 2, "usage"),
        (click.ClickException("no"), 1, "failed"),
        (KeyboardInterrupt(), 1, "stopped"),
        (click.Abort(), 1, "stopped"),
        (ValueError("bug"), 1, "internal"),
    ],
)
def test_one_document_or_words(exc: BaseException, exit_: int, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: raising(exc), True) == exit_
    out = capsys.readouterr().out
    assert json.loads(out)["error"]["code"] == code and out.count("\n") == 1
    assert guarded(lambda: raising(exc), False) == exit_
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("Traceback" in captured.err) == (code == "internal")


def test_a_result_is_the_exit_code() -> None:
    assert guarded(lambda: Exit.VERIFICATION_FAILED, False) == 9
    assert guarded(lambda: None, False) == 0
    assert guarded(lambda: True, False) == 0


def test_a_reader_that_left_is_nobody_to_complain_to() -> None:
    script = f"{sys.executable} -m ops.cli.main help json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
