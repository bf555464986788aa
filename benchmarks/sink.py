"""A mail server in a process of its own that takes everything: ``python -m benchmarks.sink``.

It prints its port, and at the end of standard input how many mails it took.
"""

import asyncio
import socket
import sys

_REPLIES = {b"EHLO": b"250 sink\r\n", b"DATA": b"354 go ahead\r\n", b"QUIT": b"221 bye\r\n"}


class Sink(asyncio.Protocol):
    """One conversation (RFC 5321); ``taken`` counts over all of them."""

    taken = 0

    def __init__(self) -> None:
        self._rest = b""
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer each command, and each mail once its end is there."""
        self._rest += data
        while True:
            end = b"\r\n.\r\n" if self._in_data else b"\r\n"
            line, found, rest = self._rest.partition(end)
            if not found:
                return
            self._rest = rest
            if self._in_data:
                Sink.taken += 1
                reply = b"250 taken\r\n"
            else:
                reply = _REPLIES.get(line[:4].upper(), b"250 ok\r\n")
            self._in_data = reply.startswith(b"354")
            self._transport.write(reply)


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(Sink.taken, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
