"""One request over a kept connection: a closed one is opened anew, a silent one is not asked twice."""

from __future__ import annotations

import asyncio

import pytest

from hosting.client.edge_tcp import TcpPool
from hosting.client.lookup import Server
from replica.model.errors import Code, ZaibeiError

REQUEST = b"r" * 24


def test_a_silent_node_is_asked_once_a_question_also_on_a_kept_connection() -> None:
    """Asking again would double the caller's patience: a takeover meanwhile would be seen so much later."""

    async def scene() -> bytes:
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.set_result(await reader.read(-1))  # a second connection would be an error
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        pool = TcpPool(answer_s_max=0.05, connect_s_max=30.0)
        node = Server("tcp", "127.0.0.1", server.sockets[0].getsockname()[1])
        for number in (1, 2):  # the second one finds the connection open
            with pytest.raises(ZaibeiError) as caught:
                await pool.ask(node, REQUEST, number)
            assert caught.value.code is Code.UNREACHABLE
        await pool.close()
        async with asyncio.timeout(30):
            found = await heard
        server.close()
        return found

    assert asyncio.run(scene()) == 2 * REQUEST
