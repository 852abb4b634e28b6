"""Owner and fronts as processes: code 2 while the owner is stopped or gone, answers again by itself afterwards.

Run as a module with a socket path this file is the owner: it serves the small world of the front tests until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hosting.answer.port import Found, MemoryAnswerPort, Wants
from hosting.front.edge_page import OwnerPage
from hosting.front.edge_port_client import PortClientSettings, SocketAnswerPort
from hosting.front.edge_port_server import PortServer, PortServerSettings
from hosting.front.pause import boottime_ns
from hosting.front.port_wire import Deframer, Kind, encode_catalog, encode_found, frame
from replica.model.errors import Code, Trouble, ZaibeiError
from tests.unit.front.world import CATALOG, NAME, ask_udp, code_of, fresh, key, resolution, serving, world

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0
PATIENT_MS = 2_000  # for tests that are not about silence: this machine may be busy


async def own(socket_path: str) -> None:
    """The owner's process."""
    server = PortServer(world(), PortServerSettings(Path(socket_path)))
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A child and its first line."""
    child = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child, child.stdout.readline()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@contextmanager
def owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    with process("tests.integration.test_front_owner", str(path)) as (child, line):
        assert line == "ready\n"
        yield child


@contextmanager
def front(folder: Path, path: Path, host: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    config = folder / "front.json"
    config.write_text(json.dumps({"socket": str(path), "udp": [[host, 0]], "reuse_port": True}))
    with process("hosting.front", str(config)) as (child, line):
        yield child, tuple(json.loads(line)["udp"][0])


async def until(address: tuple[str, int], code: int) -> float:
    """Ask until a code comes; seconds it took. Answers of any other code may come before."""
    began, number = time.monotonic(), 0
    while time.monotonic() - began < WAIT_S:
        number += 1
        (answer,) = await ask_udp(address, resolution(NAME, request_id=number))
        if code_of(answer) == code:
            return time.monotonic() - began
    raise AssertionError(f"no answer with code {code} in {WAIT_S} s")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_front_outlives_its_owner(tmp_path: Path, host: str) -> None:
    path = tmp_path / "port"
    with front(tmp_path, path, host) as (child, address):
        took = {"2 before any owner": await until(address, 2)}
        with owner(path) as first:
            await until(address, 1)
            first.send_signal(signal.SIGSTOP)
            took["2 after SIGSTOP"] = await until(address, 2)
            first.send_signal(signal.SIGCONT)
            took["1 after SIGCONT"] = await until(address, 1)
            first.kill()
            took["2 after SIGKILL"] = await until(address, 2)
        with owner(path):
            took["1 with the next owner"] = await until(address, 1)
        took["2 without it"] = await until(address, 2)
        assert child.poll() is None
    print({what: f"{seconds * 1000:.0f} ms" for what, seconds in took.items()})


async def test_two_fronts_share_an_address(tmp_path: Path) -> None:
    path = tmp_path / "port"
    with owner(path), front(tmp_path, path, "127.0.0.1") as (_, address):
        config = tmp_path / "second.json"
        config.write_text(json.dumps({"socket": str(path), "udp": [address], "reuse_port": True}))
        with process("hosting.front", str(config)) as (second, line):
            assert tuple(json.loads(line)["udp"][0]) == address
            await until(address, 1)
            second.send_signal(signal.SIGTERM)
            assert second.wait(WAIT_S) == 0
        await until(address, 1)


def test_a_taken_address_or_a_bad_file_is_one_clear_line(tmp_path: Path) -> None:
    def run(text: str) -> tuple[int, str]:
        (tmp_path / "c.json").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "hosting.front", str(tmp_path / "c.json")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    code, said = run(json.dumps({"socket": "x", "udp": [["192.0.2.1", 5]]}))
    assert code == 1 and "cannot listen for UDP on 192.0.2.1:5" in said and said.count("\n") == 1
    code, said = run('{"socket": 1}')
    assert code == 2 and "socket" in said and said.count("\n") == 1


# ------------------------------------------------------------------------------------------- the port over its socket
@asynccontextmanager
async def linked(tmp_path: Path, beat_silence_ms_max: int = PATIENT_MS) -> AsyncIterator[tuple[PortServer, SocketAnswerPort]]:
    server = PortServer(world(), PortServerSettings(tmp_path / "port"))
    await server.start()
    port = SocketAnswerPort(
        PortClientSettings(
            tmp_path / "port", beat_silence_ms_max=beat_silence_ms_max, answer_age_ms_max=PATIENT_MS, reconnect_ms=5
        )
    )
    await port.start()
    try:
        await there(port)
        yield server, port
    finally:
        await port.stop()
        await server.stop()


async def there(port: SocketAnswerPort) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                port.catalog()
                return
            except ZaibeiError:
                await asyncio.sleep(0.005)


async def test_the_socket_port_says_what_the_port_behind_it_says(tmp_path: Path) -> None:
    wants = {"gd": [key(NAME.decode()), key("88.118.8/none"), key("88.118.8/bad")], "gx": [], "elsewhere": [b"k"]}
    async with linked(tmp_path) as (server, port):
        assert await port.get_many(wants) == await server.port.get_many(wants)
        told = port.catalog()
        assert dict(told.owners.items()) == dict(CATALOG.owners.items()) and told.own_site == CATALOG.own_site


async def test_errors_of_the_port_cross_the_socket(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, port):
        memory = server.port
        memory.trouble = Trouble(Code.DAMAGED, "out of service")  # type: ignore[attr-defined]
        with pytest.raises(ZaibeiError, match="out of service") as raised:
            await port.get_many({"gd": []})
        assert raised.value.code is Code.DAMAGED


async def test_a_new_catalog_arrives_before_answers_read_after_it(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, port):
        server.port.held = replace(CATALOG, version=2)  # type: ignore[attr-defined]
        await port.get_many({"gd": []})
        assert port.catalog().version == 2


async def test_reads_under_way_fail_when_the_owner_goes_and_work_with_the_next(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, port):

        class Hanging(MemoryAnswerPort):
            async def get_many(self, wants: Wants) -> Found:
                return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        inner = world()
        server.port = Hanging(inner.held, inner.views)
        reading = asyncio.create_task(port.get_many({"gd": []}))
        await asyncio.sleep(0.02)
        await server.stop()
        with pytest.raises(ZaibeiError) as raised:
            await reading
        assert raised.value.code is Code.UNREACHABLE
        with pytest.raises(ZaibeiError):
            port.catalog()
        again = PortServer(world(), server.settings)
        await again.start()
        await there(port)
        assert await port.get_many({"gd": []})
        assert port.recoveries == 2
        await again.stop()


async def test_an_owner_whose_loop_stands_still_is_silent(tmp_path: Path) -> None:
    async with linked(tmp_path, beat_silence_ms_max=50) as (server, port):
        assert server._beat is not None
        server._beat.cancel()  # what a standing loop looks like from outside
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await port.get_many({"gd": []})
                    await asyncio.sleep(0.01)
                except ZaibeiError as exc:
                    assert exc.code is Code.UNREACHABLE
                    break
        server._tick()
        await there(port)
        assert await port.get_many({"gd": []})


async def test_a_page_of_another_opening_is_not_believed(tmp_path: Path) -> None:
    """The page that beats must be that of the owner who answers: a leftover of another one vouches for nothing."""
    async with linked(tmp_path) as (server, port):
        other = OwnerPage(server.settings.page_path, boottime_ns() + 3_600 * 10**9)
        for link in list(server.links):
            link.abort()
        async with asyncio.timeout(WAIT_S):
            while port.refusals == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        with pytest.raises(ZaibeiError):
            port.catalog()
        other.close()


async def test_an_answer_that_was_read_long_ago_is_not_used(tmp_path: Path) -> None:
    """The age in a view was true when it was read; over a pause of ours it would become a lie."""
    read_ns = [boottime_ns()]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(Kind.HELLO, 0, page.open_id) + frame(Kind.CATALOG, 0, encode_catalog(CATALOG)))
        deframer = Deframer()
        while octets := await reader.read(65_536):
            for _, number, _ in deframer.feed(octets):
                writer.write(frame(Kind.FOUND, number, encode_found({"gd": ([], fresh("gd"))}, read_ns[0])))
        writer.close()

    settings = PortClientSettings(tmp_path / "port", answer_age_ms_max=60_000)
    page = OwnerPage(settings.page_path, boottime_ns() + 3_600 * 10**9)
    server = await asyncio.start_unix_server(serve, str(settings.socket_path))
    port = SocketAnswerPort(settings)
    await port.start()
    await there(port)
    assert await port.get_many({"gd": []})
    read_ns[0] -= 61 * 10**9
    with pytest.raises(ZaibeiError, match="waited too long"):
        await port.get_many({"gd": []})
    await port.stop()
    server.close()
    page.close()


async def test_hostile_octets_on_the_port_end_that_connection_alone(tmp_path: Path) -> None:
    async with linked(tmp_path) as (_, port):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "port"))
        writer.write(b"\xff" * 100)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            async with asyncio.timeout(WAIT_S):
                while await reader.readexactly(1):
                    pass
        writer.close()
        assert await port.get_many({"gd": []})


async def test_a_whole_front_over_the_socket(tmp_path: Path) -> None:
    async with linked(tmp_path) as (_, port), serving(port) as (__, bound):
        sent = [resolution(NAME, request_id=number) for number in range(1, 65)]
        answers = await ask_udp(bound.udp[0], *sent, answers=64)
    assert {code_of(answer) for answer in answers} == {1}


if __name__ == "__main__":
    asyncio.run(own(sys.argv[1]))
