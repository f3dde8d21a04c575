"""A web process that does to the router what web processes should not do: one path each."""
import os
import socket
import struct
import threading
import time
import urllib.parse

listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])), backlog=64)


is_full = threading.Event()
is_napping = threading.Event()


def head_of(connection, rest):
    while b"\r\n\r\n" not in rest:
        more = connection.recv(65536)
        if not more:
            return None, b""
        rest += more
    head, rest = rest.split(b"\r\n\r\n", 1)
    return head, rest


def reply(connection, body, head=b"HTTP/1.1 200 OK\r\n"):
    connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def serve(connection):
    rest = b""
    while True:
        head, rest = head_of(connection, rest)
        if head is None:
            return
        path = head.split(b" ")[1].split(b"?")[0]
        method = head.split(b" ")[0].decode()
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if path == b"/expect":
            how = head.split(b" ")[1].split(b"?")[1]
            met = b"HTTP/1.1 100 Continue\r\nX-Own: 1\r\n\r\n"
            if how == b"refuse":
                reply(connection, b"no", b"HTTP/1.1 403 No\r\n")
                continue
            if how == b"silent":
                time.sleep(30)
            connection.sendall(met * (2 if how == b"twice" else 1))
            if how == b"switch":
                connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello")
                return
            path = b"/echo"
        if path == b"/stuck":
            # The body is left where it is.
            time.sleep(30)
            return
        if path == b"/refuse":
            # An answer before the body is all here.
            reply(connection, b"too much", b"HTTP/1.1 413 Content Too Large\r\n")
            while connection.recv(65536):
                pass
            return
        if path == b"/count":
            # After so many milliseconds.
            time.sleep(int(head.split(b" ")[1].partition(b"?")[2] or b"0") / 1000)
            count = len(rest)
            while count < length:
                count += len(connection.recv(65536))
            rest = b""
            reply(connection, b"%d" % count)
            continue
        while len(rest) < length:
            rest += connection.recv(65536)
        body, rest = rest[:length], rest[length:]
        if path == b"/slow":
            time.sleep(30)
        elif path == b"/watch":
            # No answer; tells when its client has left.
            print("asked by", method, flush=True)
            while connection.recv(65536):
                pass
            print("left by", method, flush=True)
            return
        elif path == b"/late":
            # So many milliseconds.
            time.sleep(int(head.split(b" ")[1].split(b"?")[1]) / 1000)
            reply(connection, b"at last")
        elif path == b"/ticks":
            # A body without end; tells when nobody takes it any more.
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    connection.sendall(b"5\r\ntick\n\r\n")
                    time.sleep(0.1)
            except OSError:
                print("left by", method, flush=True)
            return
        elif path == b"/quiet":
            # A piece of a body that is framed like this. Then nothing, until its client has left; or
            # the rest, after so many milliseconds.
            how, _, pause = head.split(b" ")[1].partition(b"?")[2].partition(b"&")
            lines = {b"chunks": b"Transfer-Encoding: chunked\r\n", b"length": b"Content-Length: 12\r\n"}
            frame = (lambda text: b"%x\r\n%s\r\n" % (len(text), text)) if how == b"chunks" else bytes
            connection.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n%s" % (lines.get(how, b""), frame(b"first,")))
            if pause:
                time.sleep(int(pause) / 1000)
                connection.sendall(frame(b"second") + (b"0\r\n\r\n" if how == b"chunks" else b""))
            else:
                while connection.recv(65536):
                    pass
                print("left by", method, flush=True)
            return
        elif path == b"/close":
            return
        elif path == b"/half":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
            return
        elif path == b"/torn":
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n0123456789")
            # A reset overtakes what the router did not read yet.
            time.sleep(0.2)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        elif path == b"/silent":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
            time.sleep(30)
        elif path == b"/garbage":
            connection.sendall(b"lorem ipsum\r\n\r\n")
            return
        elif path == b"/limits":
            # So many bytes in the status line, a header line, a cookie.
            query = urllib.parse.parse_qs(head.split(b" ")[1].split(b"?")[1])
            size = lambda name: b"x" * int(query.get(name, [b"0"])[0])
            lines = b"HTTP/1.1 200 OK%s\r\nX: %s\r\nSet-Cookie: %s\r\n"
            reply(connection, b"", lines % (size(b"status"), size(b"header"), size(b"cookie")))
        elif path == b"/bytes":
            # As fast as they are taken.
            left = int(head.split(b" ")[1].split(b"?")[1])
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
            while left > 0:
                count = min(left, 65536)
                connection.sendall(b"x" * count)
                left -= count
        elif path == b"/full":
            # From now on connects are neither accepted nor refused: the kernel's line is full.
            listener.listen(0)
            is_full.set()
            reply(connection, b"full from now on")
        elif path == b"/chunks":
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (b"hello ", b"world"):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
        elif path == b"/ws":
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := connection.recv(65536):
                connection.sendall(data)
            return
        elif path == b"/who":
            # Who answers, and to what.
            token = head.split(b" ")[1].partition(b"?")[2]
            reply(connection, b"%s %s" % (os.environ.get("NAME", "").encode(), token))
        elif path == b"/junk":
            # More than was said: another answer behind the first.
            junk = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJUNK"
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + junk)
        elif path == b"/interims":
            while True:
                connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
        elif path == b"/port":
            reply(connection, os.environ["PORT"].encode())
        elif path == b"/head":
            reply(connection, head)
        elif path == b"/trailers":
            # A chunked body comes back as it was written, with trailers of our own behind it.
            while not rest.endswith(b"\r\n\r\n"):
                rest += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
            connection.sendall(b"%x\r\n%s\r\n0\r\nX-Sum: 7\r\n\r\n" % (len(rest), rest))
            rest = b""
        elif path == b"/large":
            reply(connection, b"0123456789abcdef" * 131072)
        elif path == b"/early":
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            reply(connection, b"hello")
        elif path == b"/nap":
            # Connects are refused for so many milliseconds.
            is_napping.set()
            listener.shutdown(socket.SHUT_RDWR)
            reply(connection, b"good night", b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
            time.sleep(int(head.split(b" ")[1].split(b"?")[1]) / 1000)
            listener.listen(64)
            is_napping.clear()
            return
        elif path == b"/die":
            os.kill(os.getpid(), 9)
        elif path == b"/deaf":
            # First: what is in the kernel's line then would be reset.
            listener.close()
            reply(connection, b"deaf from now on")
        elif path == b"/play":
            # The answer is in the request, percent-encoded; when to give it, and whether to close
            # behind it, too.
            query = urllib.parse.parse_qs(head.split(b" ")[1].split(b"?")[1])
            time.sleep(int(query.get(b"after", [b"0"])[0]) / 1000)
            connection.sendall(urllib.parse.unquote_to_bytes(query[b"bytes"][0]))
            if b"close" in query:
                return
        elif path == b"/echo":
            reply(connection, body)
        else:
            reply(connection, b"hello")


def guarded(connection):
    try:
        serve(connection)
    except OSError:
        pass
    finally:
        connection.close()


print("odd listens", flush=True)
while True:
    try:
        accepted, _ = listener.accept()
    except OSError:
        if is_napping.is_set():
            time.sleep(0.01)
            continue
        break
    if is_full.is_set():
        # The line holds one more than it says.
        here = listener.getsockname()
        waiting = [socket.socket() for _ in range(2)]
        for other in waiting:
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", here[1]))
        break
    threading.Thread(target=guarded, args=(accepted,), daemon=True).start()
while True:
    time.sleep(60)
