"""D: between dynos. `neighbour` makes something of every kind; the rows look for it."""

import ctypes
import fcntl
import os
import signal
import socket

from base import call, libc, opens, row, text

KEY = 0x5EC0DE
SYS_shmget, SYS_semget, SYS_msgget = 29, 64, 68
CREATE = 0o1000


def neighbour():
    """Leaves canaries everywhere, says so, and stays."""
    kept = []
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0canary-of-a-dyno")
    abstract.listen()
    path = socket.socket(socket.AF_UNIX)
    path.bind("/tmp/canary.sock")
    path.listen()
    port = socket.socket()
    port.bind(("0.0.0.0", 7777))
    port.listen()
    call(SYS_shmget, KEY, 4096, CREATE | 0o666)
    call(SYS_semget, KEY, 1, CREATE | 0o666)
    call(SYS_msgget, KEY, CREATE | 0o666)
    if libc.mq_open(b"/canary", os.O_CREAT | os.O_RDWR, 0o666, None) < 0:
        raise OSError(ctypes.get_errno(), "mq_open")
    for file in ("/dev/shm/canary", "/tmp/canary", "/app/canary"):
        with open(file, "w") as out:
            out.write("secret")
    for file in ("/usr/bin/env", "/etc/passwd"):
        lower = open(file)
        fcntl.flock(lower, fcntl.LOCK_EX)
        kept.append(lower)
    who = "user" if os.getuid() else "root" if text("/proc/self/status").count("Seccomp:\t2") else "bare"
    print(f"neighbour is ready as {who}", flush=True)
    while True:
        signal.pause()


@row("D-01")
def processes(steps):
    names = {open(f"/proc/{name}/cmdline", "rb").read() for name in os.listdir("/proc") if name.isdigit()}
    steps.equal("the neighbour's command", [name for name in names if b"neighbour" in name], [])
    found = []
    for pid in range(2, 5000):
        try:
            line = open(f"/proc/{pid}/environ", "rb").read()
        except OSError:
            continue
        if b"DYNO=probe" in line:
            found.append(pid)
    steps.equal("its environment", found, [])
    steps.attack("signal it", lambda: os.kill(4_000_000, 9), "ESRCH")
    steps.works("signal itself", lambda: os.kill(os.getpid(), 0))


@row("D-02")
def shared_memory(steps):
    steps.attack("System V shared memory", lambda: call(SYS_shmget, KEY, 4096, 0), "ENOENT")
    steps.attack("System V semaphores", lambda: call(SYS_semget, KEY, 1, 0), "ENOENT")
    steps.attack("System V messages", lambda: call(SYS_msgget, KEY, 0), "ENOENT")
    steps.attack("POSIX messages", open_queue, "ENOENT")
    steps.attack("POSIX shared memory", opens("/dev/shm/canary"), "ENOENT")
    steps.works("shared memory of its own", lambda: call(SYS_shmget, 1, 4096, CREATE | 0o600))


def open_queue():
    if libc.mq_open(b"/canary", os.O_RDWR) < 0:
        raise OSError(ctypes.get_errno(), "mq_open")


def connect(family, address):
    def act():
        with socket.socket(family) as client:
            client.settimeout(2)
            client.connect(address)

    return act


@row("D-03")
def abstract_sockets(steps):
    for name in ("canary-of-a-dyno", "canary-of-the-host"):
        steps.attack(name, connect(socket.AF_UNIX, "\0" + name), "ECONNREFUSED")
    own = socket.socket(socket.AF_UNIX)
    own.bind("\0own")
    own.listen()
    steps.works("its own", connect(socket.AF_UNIX, "\0own"))


@row("D-04")
def path_sockets(steps):
    for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock",
                 "/run/systemd/private", "/run/systemd/notify", "/run/systemd/journal/socket",
                 "/run/dbus/system_bus_socket", "/run/manifold/manifold.sock", "/dev/log",
                 "/tmp/canary.sock", os.environ.get("CONTROL_SOCKET", "/run/none")):
        steps.attack(path, connect(socket.AF_UNIX, path), "ENOENT")
    steps.attack("by the root of PID 1", connect(socket.AF_UNIX, "/proc/1/root/run/x"), "EACCES")
    sockets = []
    for folder, _, files in os.walk("/", onerror=None):
        if folder.startswith(("/proc", "/sys", "/usr")):
            continue
        for name in files:
            file = os.path.join(folder, name)
            if os.path.exists(file) and (os.stat(file).st_mode & 0o170000) == 0o140000:
                sockets.append(file)
    steps.equal("sockets in the whole tree", [s for s in sockets if s != "/tmp/own"], [])


@row("D-05")
def files(steps):
    for path in ("/tmp/canary", "/app/canary", "/dev/shm/canary"):
        steps.attack(path, opens(path), "ENOENT")
    state = os.environ.get("STATE", "/var/lib/manifold")
    for path in (state, state + "/dynos", state + "/logs", "/proc/1/cwd", "/upper", "/work"):
        steps.attack(path, lambda path=path: os.listdir(path), "ENOENT|EACCES")
    found = []
    for pid in range(1, 5000):
        for number in range(4):
            try:
                os.readlink(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            with open(f"/proc/{pid}/status") as file:
                if "NSpid" in file.read() and not mine(pid):
                    found.append(pid)
    steps.equal("descriptors of others", found, [])
    steps.works("its own file", opens("/app/main.py"))


def mine(pid):
    return os.path.exists(f"/proc/{pid}/task") and os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")


@row("D-06")
def locks(steps):
    lower = open("/usr/bin/env")
    # Documented: one bit between dynos, by locks on files of the shared stack.
    steps.attack(
        "lock a file of the shared stack",
        lambda: fcntl.flock(lower, fcntl.LOCK_EX | fcntl.LOCK_NB),
        "EAGAIN",
    )
    own = open("/etc/passwd")
    steps.attack(
        "lock a file of its overlay", lambda: fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB), "SUCCEEDED"
    )


@row("D-07")
def leaks(steps):
    """The documented list: readable, and about the whole machine."""
    for path in ("loadavg", "meminfo", "stat", "uptime", "vmstat", "cpuinfo", "version",
                 "diskstats", "partitions", "swaps", "sys/kernel/random/boot_id"):
        steps.works("/proc/" + path, lambda path=path: text("/proc/" + path))
    steps.equal("processes of others", [name for name in os.listdir("/proc") if name.isdigit() and name != "1" and not mine(int(name))], [])
    steps.equal("pid of the first", os.path.exists("/proc/1"), True)


