"""Does in a dyno what it is told on stdin, one attempt a line, and tells how it went."""

import errno
import fcntl
import select
import socket
import struct
import sys
import time

held = {}


def tcp(host, port, wait="2"):
    socket.create_connection((host, int(port)), float(wait)).close()


def get(host, port):
    with socket.create_connection((host, int(port)), 3) as stream:
        stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
        text = b""
        while part := stream.recv(4096):
            text += part
    return text.decode().strip().rsplit("\n", 1)[-1]


def hold(host, port):
    held[host] = socket.create_connection((host, int(port)), 3)
    return echo(host)


def echo(host):
    held[host].settimeout(3)
    held[host].sendall(b"still there")
    if held[host].recv(100) != b"still there":
        raise OSError(errno.ECONNRESET, "closed")


def udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect((host, int(port)))
        sock.send(b"hello")
        sock.recv(100)


def flows(host, port, count):
    """Opens many UDP flows; how many were answered."""
    socks = []
    for _ in range(int(count)):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((host, int(port)))
        sock.setblocking(False)
        try:
            sock.send(b"hello")
        except OSError:
            pass
        socks.append(sock)
    answered = set()
    while ready := select.select([s for s in socks if s not in answered], [], [], 1)[0]:
        for sock in ready:
            sock.recv(100)
            answered.add(sock)
    return str(len(answered))


def own():
    """Our address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return sock.getsockname()[0]


def open_flow(port, host, to):
    """A datagram from this port; it stays open."""
    sock = held["flow"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", int(port)))
    sock.settimeout(3)
    sock.sendto(b"hello", (host, int(to)))
    sock.recv(100)


def listen(port, seconds):
    """Whether anything comes to this port."""
    sock = held.get("flow")
    if not sock:
        sock = held["flow"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", int(port)))
    sock.settimeout(float(seconds))
    try:
        return sock.recv(100).decode()
    except TimeoutError:
        return "nothing"


def pour(host, port, seconds):
    """As many large datagrams as go; how many went."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, int(port)))
    end, sent = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        for _ in range(100):
            try:
                sock.send(b"x" * 1400)
                sent += 1
            except OSError:
                pass
    return str(sent)


def dns(name):
    return socket.gethostbyname(name)


def scan(first, last, port):
    """Who of 172.X.0.first to last answers, but ourselves."""
    ours = own()
    base = ours.rsplit(".", 1)[0]
    waiting, found = {}, []
    for last_byte in range(int(first), int(last) + 1):
        address = f"{base}.{last_byte}"
        if address == ours:
            continue
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        # Our end of our own link is this host: it refuses at once, whoever listens.
        if sock.connect_ex((address, int(port))) in (0, errno.EINPROGRESS):
            waiting[sock] = address
    end = time.monotonic() + 0.5
    while waiting and (left := end - time.monotonic()) > 0:
        for sock in select.select([], list(waiting), [], left)[1]:
            address = waiting.pop(sock)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(address)
            sock.close()
    for sock in waiting:
        sock.close()
    return ",".join(found) or "nobody"


def six(host, port):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.settimeout(2)
    sock.connect((host, int(port)))


def unix(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)


def device(name):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())


def bind(address):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((address, 0))


def link_request(request, payload):
    """An ioctl that changes eth0: struct ifreq is a name and a union."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(sock, request, struct.pack("16s24s", b"eth0", payload))


def address(text):
    link_request(0x8916, struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(text)))


def mac(text):
    link_request(0x8924, struct.pack("H6s", 1, bytes.fromhex(text.replace(":", ""))))


def option(level, name, value):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(getattr(socket, level), int(name), int(value))


def make(family, kind, protocol):
    socket.socket(getattr(socket, family), getattr(socket, kind), int(protocol))


def low(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("0.0.0.0", int(port)))


def gateway():
    for line in open("/proc/net/route"):
        fields = line.split()
        if fields[1] == "00000000":
            return socket.inet_ntoa(bytes.fromhex(fields[2])[::-1])
    return "none"


def read(path):
    return open(path).read().strip().replace("\n", "|")


print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    try:
        outcome = globals()[words[0]](*words[1:]) or "SUCCEEDED"
    except TimeoutError:
        outcome = "BLOCKED ETIMEDOUT"
    except socket.gaierror as error:
        outcome = f"BLOCKED {error}"
    except OSError as error:
        outcome = f"BLOCKED {errno.errorcode.get(error.errno, error)}"
    print(outcome, flush=True)
