"""Carries bytes between a port on loopback and the Unix socket given; prints the port.

For who speaks TCP only. The socket then sees this process as the one who asks.
"""

import asyncio
import sys


async def pump(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (ConnectionError, OSError):
        pass


async def carry(reader, writer):
    try:
        there = await asyncio.open_unix_connection(sys.argv[1])
    except OSError:
        writer.close()
        return
    # Whichever side ends first ends both: an event stream has no end of its own.
    answers = asyncio.ensure_future(pump(there[0], writer))
    asks = asyncio.ensure_future(pump(reader, there[1]))
    await answers
    asks.cancel()
    for end in (there[1], writer):
        end.close()


async def main():
    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
