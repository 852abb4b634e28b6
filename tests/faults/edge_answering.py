"""A node's own site, as far as probes look: every question gets a well-formed answer, "not found"."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from chaos.standin.edge_serve import expiration_s
from replica.model.handle.answers import error_answer, peek_resolution
from replica.model.handle.codes import ResponseCode
from replica.model.handle.stream import Deframer

PIECE_OCTETS_MAX = 65_536


async def serve(hosts: Sequence[str], port: int, prefix: str) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deframer = Deframer()
        with suppress(OSError):
            while piece := await reader.read(PIECE_OCTETS_MAX):
                for message in deframer.feed(piece):
                    if (asked := peek_resolution(message)) is not None:
                        text = f"the node of {prefix} lives".encode()
                        writer.write(error_answer(asked, ResponseCode.HANDLE_NOT_FOUND, text, expiration_s()))
                        await writer.drain()
        writer.close()

    return await asyncio.start_server(connected, hosts, port)
