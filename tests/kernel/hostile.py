"""Goes to one bound of a dyno and stays there. Says once that it was there."""

import errno
import mmap
import os
import socket
import sys
import threading
import time

kind = sys.argv[1]
said = False


def hit(what):
    global said
    if not said:
        said = True
        print("hit", kind, what, flush=True)


def name(error):
    return errno.errorcode.get(error.errno, str(error))


def fork():
    # Every process forks on; what cannot be made is tried again at once.
    while True:
        try:
            os.fork()
        except OSError as error:
            hit(name(error))


def threads():
    while True:
        try:
            threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()
        except RuntimeError as error:
            hit(str(error).replace(" ", "_"))


def eat():
    kept = []
    while True:
        kept.append(bytearray(b"x" * (1 << 20)))


def churn():
    # Near twice the quota, again and again: pages taken, written, given back.
    while True:
        area = mmap.mmap(-1, 100 << 20)
        for at in range(0, 100 << 20, 4096):
            area[at] = 1
        area.close()
        hit("100_MiB")


def descriptors():
    for _ in range(8):
        if os.fork() == 0:
            break
    makers = [
        lambda: os.open("/dev/null", os.O_RDONLY),
        lambda: os.pipe()[0],
        lambda: socket.socket().detach(),
        lambda: os.memfd_create("x"),
    ]
    kept = []
    while True:
        try:
            kept.append(makers[len(kept) % 4]())
        except OSError as error:
            hit(name(error))
            for fd in kept[: len(kept) // 2]:
                os.close(fd)
            kept = []


def burn():
    for _ in range(16):
        if os.fork() == 0:
            break
    end = time.monotonic() + 1
    while True:
        if time.monotonic() > end:
            hit("a_second")


def fill():
    chunk = os.urandom(1 << 20)
    while True:
        try:
            with open("/tmp/big", "wb", buffering=0) as file:
                while True:
                    file.write(chunk)
                    os.fdatasync(file.fileno())
        except OSError as error:
            hit(name(error))
        os.unlink("/tmp/big")


def connect():
    server = socket.socket()
    server.bind(("127.0.0.1", 4000))
    server.listen(4096)
    tried = 0
    kept = []
    while True:
        # Itself, and private addresses, which no packet of a dyno reaches.
        for address in [("127.0.0.1", 4000), ("10.255.255.1", 80), ("169.254.169.254", 80)]:
            try:
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(address)
                kept.append(one)
            except OSError:
                kept = []
            tried += 1
        if tried > 20_000:
            hit(tried)


{
    "fork": fork,
    "threads": threads,
    "eat": eat,
    "churn": churn,
    "descriptors": descriptors,
    "burn": burn,
    "fill": fill,
    "connect": connect,
}[kind]()
