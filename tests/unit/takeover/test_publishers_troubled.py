"""Publication adapters in trouble say so: whatever else they raise would end the member, in the middle of a takeover."""

from __future__ import annotations

import errno
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue
from replica.model.signing import Signer
from replica.takeover.edge_hook import HookConfig, HookPublisher
from replica.takeover.edge_recursive import RecursiveConfig, RecursivePublisher
from replica.takeover.edge_request import RequestConfig, RequestPublisher
from replica.takeover.publish import Publication
from replica.takeover.request import ANSWER, ANSWER_SUFFIX, REQUEST_SUFFIX, name_of
from replica.takeover.top_record import MARK, mark_of

ASKED = Publication("88.118", (b"site",), 3, "act")


async def trouble_of(config: RecursiveConfig) -> ZaibeiError:
    with pytest.raises(ZaibeiError) as caught:
        await RecursivePublisher(config).publish(ASKED)
    return caught.value


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
async def test_roots_that_cannot_be_read_are_told(tmp_path: Path, content: bytes | None) -> None:
    """They are read at each call, and may just be replaced."""
    roots = tmp_path / "roots.pem"
    if content is not None:
        roots.write_bytes(content)
    told = await trouble_of(RecursiveConfig("r", "https://127.0.0.1:1", ca_file=roots))
    assert (told.code, told.trouble.retry) == (Code.INVALID_CONFIG, True)


async def test_a_host_that_is_no_name_is_told() -> None:
    assert (await trouble_of(RecursiveConfig("r", f"http://{'a' * 64}.example:1"))).code is Code.UNREACHABLE


def test_a_port_that_is_none_is_told_before_anything_is_published() -> None:
    with pytest.raises(ZaibeiError) as caught:
        RecursivePublisher(RecursiveConfig("r", "http://127.0.0.1:99999"))
    assert caught.value.code is Code.INVALID_CONFIG


class Deep(http.server.BaseHTTPRequestHandler):
    """Answers with JSON that nests deeper than anybody reads."""

    def do_POST(self) -> None:
        octets = b"[" * 200_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def deep() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Deep)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


async def test_an_answer_that_nests_too_deep_is_no_json(deep: int) -> None:
    assert (await trouble_of(RecursiveConfig("r", f"http://127.0.0.1:{deep}"))).code is Code.UNREACHABLE


async def test_a_program_that_cannot_be_run_for_lack_of_files_is_run_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def no_pipe() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", no_pipe)
    with pytest.raises(ZaibeiError) as caught:
        await HookPublisher(HookConfig("h", program)).publish(ASKED)
    assert (caught.value.code, caught.value.trouble.retry) == (Code.UNREACHABLE, True)


SIGNER = Signer(Ed25519PrivateKey.generate())


def asking(folder: Path) -> RequestPublisher:
    config = RequestConfig("f", folder, folder, "m1", SIGNER, ("top", bytes(32)), wait_s_max=0.0)
    return RequestPublisher(config, None)


async def test_an_answer_with_half_a_letter_is_none(tmp_path: Path) -> None:
    """Whoever may write into the folder needs no key for that."""
    path = tmp_path / name_of(ASKED, "m1")
    answer = path.with_name(path.name.removesuffix(REQUEST_SUFFIX) + ANSWER_SUFFIX)
    answer.write_bytes(
        json.dumps(
            {"format": ANSWER, "request": "00", "result": "done", "text": "\ud800", "key_id": "00", "signature": "00"}
        ).encode()
    )
    told = await asking(tmp_path).publish(ASKED)
    assert not told.confirmed and "cannot be read" in told.detail


async def test_a_file_whose_serial_is_no_number_is_no_request(tmp_path: Path) -> None:
    (tmp_path / f"88.118_\u00b2_publish_m2{REQUEST_SUFFIX}").write_bytes(b"")
    told = await asking(tmp_path).publish(ASKED)
    assert not told.confirmed and "nobody has answered yet" in told.detail


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"serial": Infinity, "act": "", "withdrawn": true, "before": [], "placed": []}']
)
def test_a_mark_that_somebody_changed_is_a_conflict(data: bytes) -> None:
    with pytest.raises(ZaibeiError) as caught:
        mark_of([HandleValue(1, MARK, data)])
    assert caught.value.code is Code.CONFLICT
