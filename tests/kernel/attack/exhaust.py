"""`exhaust.py KIND`: uses one thing up, says `ends ERRNO COUNT` and stays as long as it is told."""

import ctypes
import errno
import mmap
import os
import resource
import select
import signal
import socket
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
MIB = 1 << 20
kept = []


def until_refused(act, most):
    """How often it works, and what ends it."""
    for count in range(most):
        try:
            act(count)
        except OSError as error:
            return errno.errorcode[error.errno], count
        except RuntimeError:
            return "EAGAIN", count
        except ValueError:
            return "EPERM", count
        except MemoryError:
            return "ENOMEM", count
    return "done", most


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def fork(_):
    if os.fork() == 0:
        time.sleep(1000)
        os._exit(0)


def zombie(_):
    if os.fork() == 0:
        os._exit(0)


def daemon(_):
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            if os.fork() == 0:
                time.sleep(1000)
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise OSError(errno.EAGAIN, "")


def thread(_):
    threading.stack_size(64 << 10)
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


def anon(_):
    block = mmap.mmap(-1, MIB)
    for at in range(0, MIB, 4096):
        block[at] = 1
    kept.append(block)


def shm(count):
    with open("/dev/shm/fill", "ab", buffering=0) as file:
        file.write(b"x" * MIB)


def cache(count):
    with open("/tmp/fill", "ab", buffering=0) as file:
        file.write(b"x" * MIB)


def memfd(count):
    if not kept:
        kept.append(os.memfd_create("fill"))
    os.write(kept[0], b"x" * MIB)


def pipe(_):
    import fcntl

    read, write = os.pipe()
    kept.extend((read, write))
    size = fcntl.fcntl(write, 1031, MIB)
    os.set_blocking(write, False)
    os.write(write, b"x" * size)


def sockets(_):
    one, other = socket.socketpair()
    kept.extend((one, other))
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    try:
        while True:
            one.send(b"x" * 65536)
    except BlockingIOError:
        pass


def tcp(_):
    """A connection whose other end never reads."""
    if not kept:
        kept.append(socket.create_server(("127.0.0.1", 0), backlog=16))
        kept[0].settimeout(5)
    try:
        one = socket.create_connection(kept[0].getsockname(), 5)
        other, _ = kept[0].accept()
    except TimeoutError:
        raise OSError(errno.ENOBUFS, "no room for a connection")
    kept.extend((one, other))
    one.setblocking(False)
    try:
        while True:
            one.send(b"x" * 65536)
    except BlockingIOError:
        pass


def tcp_memory():
    """What all of the host's TCP holds, in MiB."""
    for line in open("/proc/net/sockstat"):
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * 4096 // MIB
    raise AssertionError("no line of TCP")


def dentries(count):
    for name in range(1000):
        try:
            os.stat(f"/tmp/none-{count}-{name}")
        except FileNotFoundError:
            pass


def tables(_):
    """One page in each 2 MiB: a page of tables for each page of memory."""
    block = mmap.mmap(-1, 256 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    for at in range(0, 256 * MIB, 2 * MIB):
        block[at] = 1
    kept.append(block)


def descriptors(_):
    kept.append(os.open("/dev/null", os.O_RDONLY))


def inotify(_):
    kept.append(checked(libc.inotify_init1(0)))


def epoll(count):
    if not kept:
        kept.append(select.epoll())
    kept.append(os.eventfd(0))
    kept[0].register(kept[-1])


def timers(_):
    identity = ctypes.c_int()
    checked(libc.timer_create(1, None, ctypes.byref(identity)))


def signals(_):
    signal.pthread_sigmask(signal.SIG_BLOCK, [40])
    checked(libc.sigqueue(os.getpid(), 40, 0))


def queues(count):
    checked(libc.mq_open(b"/q%d" % count, os.O_CREAT | os.O_RDWR, 0o600, None))


def keys(count):
    number = 248
    checked(libc.syscall(number, b"user", b"k%d" % count, b"x", 1, -3))


MOST = {
    "fork": 3000, "zombie": 3000, "daemon": 3000, "thread": 3000, "anon": 600, "shm": 600,
    "cache": 600, "memfd": 600, "pipe": 600, "sockets": 3000, "tcp": 600, "dentries": 200, "tables": 400,
    "descriptors": 2_000_000, "inotify": 100_000, "epoll": 2_000_000, "timers": 200_000,
    "signals": 200_000, "queues": 10_000, "keys": 10_000,
}


def scheduling():
    """X-04: what would take the processor from others."""
    def policy(number, priority):
        os.sched_setscheduler(0, number, os.sched_param(priority))

    deadline = (ctypes.c_uint8 * 48)()
    deadline[0], deadline[4] = 48, 6
    ctypes.memmove(ctypes.addressof(deadline) + 24, (ctypes.c_uint64 * 3)(10**7, 10**8, 10**8), 24)
    acts = {
        "fifo": lambda _: policy(os.SCHED_FIFO, 1),
        "rr": lambda _: policy(os.SCHED_RR, 99),
        "deadline": lambda _: checked(libc.syscall(314, 0, deadline, 0)),
        "nice": lambda _: os.setpriority(os.PRIO_PROCESS, 0, -20),
        "rtprio": lambda _: resource.setrlimit(resource.RLIMIT_RTPRIO, (99, 99)),
    }
    for name, act in acts.items():
        print(name, *until_refused(act, 1), flush=True)


def burn(count):
    """A family that burns until it is stopped."""
    end = time.monotonic() + 600
    for _ in range(int(count) - 1):
        if os.fork() == 0:
            break
    while time.monotonic() < end:
        pass
    os._exit(0)


def storm():
    """X-09: everything that waits for a disk, in a loop."""
    for number in range(4):
        if os.fork() == 0:
            with open(f"/tmp/storm-{number}", "wb", buffering=0) as file:
                while True:
                    file.seek(0)
                    file.write(os.urandom(MIB))
                    os.fsync(file.fileno()) if number % 2 else os.sync()
    print("storm", *until_refused(lambda _: open("/proc/sys/vm/drop_caches", "w"), 1), flush=True)
    time.sleep(1000)


def stubborn(kind):
    """X-10: a process that does not want to go."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    if kind == "stopped":
        print("ready", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "first":
        os.kill(1, signal.SIGKILL)
    if kind == "forking":
        print("ready", flush=True)
        while True:
            try:
                if os.fork():
                    os._exit(0)
                os.setsid()
            except OSError:
                pass
    print("ready", flush=True)
    while True:
        time.sleep(1000)


kind = sys.argv[1]
if kind in MOST:
    if kind == "descriptors" or kind == "epoll":
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most[1], most[1]))
    before = tcp_memory()
    ends = until_refused(globals()[kind], MOST[kind])
    held = [tcp_memory() - before] if kind == "tcp" else []
    print("ends", kind, *ends, *held, flush=True)
    if len(sys.argv) > 2:
        time.sleep(float(sys.argv[2]))
    os._exit(0)
else:
    globals()[kind](*sys.argv[2:])
