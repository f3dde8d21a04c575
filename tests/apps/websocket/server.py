"""A web process over Debian's `websockets`: it says back what it hears, on `/echo` nothing else."""
import asyncio
import os
import signal

import websockets

PORT = int(os.environ["PORT"])


async def serve(socket):
    if socket.path != "/echo":
        await socket.send("welcome")
    async for message in socket:
        if message == "leave":
            await socket.close(4001, "as you wish")
        else:
            await socket.send(message)


async def main():
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    # No pings: who is silent is silent.
    async with websockets.serve(serve, "0.0.0.0", PORT, ping_interval=None, max_size=None):
        print("listening on", PORT, flush=True)
        await stop


asyncio.run(main())
