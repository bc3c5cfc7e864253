"""A proxy that ends the TLS of sites and reads every decrypted byte, for tests of what leaves them."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress
from pathlib import Path

from fedrag.security.certificates import new_server_certificate


class Tap:
    """Ends the TLS of sites, writes down what they send and what they get, and passes it on.

    Args:
        port: Where it listens.
        behind: The real reverse proxy's port.
        folder: The coordinator's folder: its authority signs this proxy's certificate too.
        own: Takes this proxy's certificate.
    """

    def __init__(self, port: int, behind: int, folder: Path, own: Path) -> None:
        new_server_certificate(
            own / "tap.crt", own / "tap.key", folder / "ca.crt", folder / "ca.key", ["127.0.0.1"], 10
        )
        self._inside = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._outside.load_cert_chain(own / "tap.crt", own / "tap.key")
        self.port, self._behind = port, behind
        self.sent = bytearray()
        self.got = bytearray()
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", port, ssl=self._outside))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, upstream = await asyncio.open_connection("127.0.0.1", self._behind, ssl=self._inside)
        await asyncio.gather(copy(reader, upstream, self.sent), copy(inside, writer, self.got))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, record: bytearray) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            record += data
            target.write(data)
            await target.drain()
    target.close()
