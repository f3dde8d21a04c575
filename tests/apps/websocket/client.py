"""Talks to the app through the router, as told: address, host, what to do. Asserts what must hold."""
import asyncio
import random
import sys
import time

import websockets

port, host, act = sys.argv[1:4]


def connect(**options):
    # The address is the router's, the name is the app's.
    return websockets.connect(f"ws://{host}/chat?x=1", host="127.0.0.1", port=int(port),
                              ping_interval=None, max_size=None, **options)


async def messages():
    """Text, bytes, empty, large, pings, in order; then the close code of the other side."""
    async with connect() as socket:
        assert await socket.recv() == "welcome"
        for message in ["", "héllo", b"\x00\xff", "x" * 125, "x" * 126, b"y" * 65536, b"z" * 3_000_000]:
            await socket.send(message)
            assert await socket.recv() == message, len(message)
        pieces = [bytes(random.randrange(256) for _ in range(100)) for _ in range(200)]
        for piece in pieces:
            await socket.send(piece)
        for piece in pieces:
            assert await socket.recv() == piece
        await asyncio.wait_for(await socket.ping(), 10)
        await socket.send("leave")
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4001, "as you wish"), socket.close_code


async def many():
    """Many at once, none mixed up."""
    async def one(number):
        async with connect() as socket:
            assert await socket.recv() == "welcome"
            for turn in range(20):
                await socket.send(f"{number} {turn}")
                assert await socket.recv() == f"{number} {turn}"
    await asyncio.gather(*(one(number) for number in range(100)))


async def idle():
    """Silent for too long: cut, and the client sees a connection that was not closed in form."""
    async with connect() as socket:
        assert await socket.recv() == "welcome"
        # Something is said before the limit (1 s), then nothing.
        for _ in range(4):
            await asyncio.sleep(0.5)
            await socket.send("here")
            assert await socket.recv() == "here"
        start = time.monotonic()
        await socket.wait_closed()
        assert 0.8 < time.monotonic() - start < 5
        assert socket.close_code == 1006, socket.close_code


async def drain():
    """The dyno is told to go: it closes in form, after what was on its way."""
    async with connect() as socket:
        assert await socket.recv() == "welcome"
        print("open", flush=True)
        await socket.wait_closed()
        assert socket.close_code == 1001, socket.close_code


async def restart():
    """The router makes way: each client is told between two messages, and may come again at once."""
    async def one(number):
        async with connect() as socket:
            assert await socket.recv() == "welcome"
            yield
            for turn in range(1000):
                try:
                    await socket.send(f"{number} {turn} {'x' * 70000}")
                    assert (await socket.recv()).startswith(f"{number} {turn} ")
                    await asyncio.sleep(0.01)
                except websockets.ConnectionClosed:
                    break
            await socket.wait_closed()
            assert socket.close_code == 1012, socket.close_code
    clients = [one(number) for number in range(10)]
    for client in clients:
        await anext(client)
    print("open", flush=True)
    async def end(client):
        async for _ in client:
            pass
    await asyncio.gather(*(end(client) for client in clients))


asyncio.run(asyncio.wait_for({"messages": messages, "many": many, "idle": idle, "drain": drain, "restart": restart}[act](), 60))
print("done", flush=True)
