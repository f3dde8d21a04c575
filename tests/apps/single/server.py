"""A web process that serves one request at a time: GET /work/MICROSECONDS takes so long."""

import os
import signal
import socket
import time

server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", int(os.environ["PORT"])))
# What the router hands over waits here, where no other process can have it.
server.listen(4096)
leaving = False


def leave(*_):
    global leaving
    leaving = True
    server.shutdown(socket.SHUT_RD)


signal.signal(signal.SIGTERM, leave)
while not leaving:
    try:
        client, _ = server.accept()
    except OSError:
        break
    with client:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(65536)
            if not data:
                break
            head += data
        else:
            path = head.split(b" ", 2)[1]
            if path.startswith(b"/work/"):
                time.sleep(int(path[6:]) / 1e6)
            body = os.environ["DYNO"].encode()
            client.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
