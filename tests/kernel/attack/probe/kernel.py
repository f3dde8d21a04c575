"""K: /proc, /sys, /dev."""

import ctypes
import errno
import glob
import os
import socket
import stat

from base import call, libc, opens, row, text

SYS_mount, SYS_fsopen, SYS_unshare, SYS_syslog, SYS_mknod = 165, 430, 272, 103, 133
CLONE_NEWPID, CLONE_NEWNS, CLONE_NEWUSER = 0x2000_0000, 0x2_0000, 0x1000_0000


def writable(*roots):
    """Files below these that can be opened for writing."""
    found = []
    for root in roots:
        for folder, _, files in os.walk(root):
            for name in files:
                path = os.path.join(folder, name)
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
                    found.append(path)
                except OSError:
                    pass
    return found


def seen(path):
    """absent, masked (the null device, an empty directory), or what it is."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return "absent" if error.errno == errno.ENOENT else errno.errorcode[error.errno]
    if stat.S_ISDIR(mode):
        try:
            return "masked" if not os.listdir(path) else "open"
        except OSError as error:
            return errno.errorcode[error.errno]
    if stat.S_ISCHR(mode) and os.stat(path).st_rdev == os.makedev(1, 3):
        return "masked"
    try:
        with open(path, "rb") as file:
            return "open" if file.read(1) else "empty"
    except OSError as error:
        return errno.errorcode[error.errno]


@row("K-01")
def sysctls(steps):
    steps.equal("writable below /proc/sys", writable("/proc/sys"), [])
    for name in ("kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "vm/drop_caches",
                 "kernel/randomize_va_space", "net/ipv4/ip_forward", "user/max_user_namespaces"):
        steps.attack(name, opens("/proc/sys/" + name, os.O_WRONLY), "EACCES|EROFS|ENOENT|EPERM")
    steps.attack("binfmt_misc", opens("/proc/sys/fs/binfmt_misc/register", os.O_WRONLY), "ENOENT|EACCES|EROFS")
    steps.works("read one", lambda: text("/proc/sys/kernel/ostype"))


@row("K-02")
def proc_writes(steps):
    steps.equal("/proc/sysrq-trigger", seen("/proc/sysrq-trigger") in ("masked", "absent"), True)
    for path in ("/proc/acpi", "/proc/scsi"):
        steps.equal(path, seen(path) in ("masked", "absent"), True)
    steps.equal("writable", writable("/proc/bus", "/proc/irq", "/proc/fs", "/proc/asound", "/sys"), [])
    steps.works("read /proc", lambda: text("/proc/meminfo"))


@row("K-03")
def devices(steps):
    expected = ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
                "stdout", "tty", "urandom", "zero"]
    steps.equal("/dev", sorted(os.listdir("/dev")), expected)
    for name in ("mem", "kmem", "port", "kvm", "fuse", "net/tun", "loop-control", "loop0", "sda",
                 "vda", "mapper/control", "vhost-net", "vsock", "uinput", "cpu/0/msr"):
        steps.attack(name, opens("/dev/" + name, os.O_RDWR), "ENOENT")
    steps.equal("/proc/kcore", seen("/proc/kcore") in ("masked", "absent"), True)
    steps.attack("/proc/kmem", opens("/proc/kmem"), "ENOENT")
    for name in ("null", "zero", "urandom"):
        steps.works(name, opens("/dev/" + name, os.O_RDWR))


@row("K-04")
def device_nodes(steps):
    for kind, word in ((stat.S_IFCHR, "character"), (stat.S_IFBLK, "block")):
        for folder in ("/app", "/tmp", "/dev/shm"):
            path = f"{folder}/node".encode()
            steps.attack(
                f"mknod a {word} device in {folder}",
                lambda path=path, kind=kind: call(SYS_mknod, path, kind | 0o666, os.makedev(1, 5)),
                "EPERM",
            )
    # The test put this one into the slug's tree: /dev/zero by another name.
    steps.attack("a node of the slug", opens("/app/planted-node"), "EACCES")
    steps.works("mkfifo", lambda: os.mkfifo("/app/fifo"))


@row("K-05")
def kernel_log(steps):
    steps.attack("/dev/kmsg", opens("/dev/kmsg", os.O_RDWR), "ENOENT")
    steps.attack("/proc/kmsg", opens("/proc/kmsg"), "EACCES|EPERM")
    buffer = ctypes.create_string_buffer(256)
    for action in (2, 3, 5, 10):
        steps.attack(
            f"syslog {action}", lambda action=action: call(SYS_syslog, action, buffer, 256), "EPERM"
        )
    steps.works("write to stderr", lambda: os.write(2, b""))


@row("K-06")
def host_details(steps):
    paths = ["/proc/" + name for name in (
        "keys", "key-users", "timer_list", "timer_stats", "latency_stats", "sched_debug",
        "kallsyms", "interrupts", "kcore", "slabinfo", "vmallocinfo", "kpagecount", "kpageflags",
        "kpagecgroup", "iomem", "ioports")]
    paths += ["/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/debug",
              "/sys/kernel/security", "/sys/kernel/tracing", "/sys/fs/bpf", "/sys/fs/pstore"]
    paths += glob.glob("/sys/devices/system/cpu/*/thermal_throttle")
    hidden = {"absent", "masked", "empty", "EACCES", "EPERM", "zeroed"}
    for path in paths:
        state = seen(path)
        if path in ("/proc/iomem", "/proc/ioports") and state == "open":
            state = "zeroed" if zeroed(path) else "addresses"
        steps.equal(path, state if state not in hidden else "hidden", "hidden")
    steps.works("read /proc/cpuinfo", lambda: text("/proc/cpuinfo"))


def zeroed(path):
    """Without privilege the kernel shows these with all addresses zero."""
    return all(line.strip().startswith(("00000000-00000000", "0000-0000")) for line in text(path).splitlines())


@row("K-07")
def fresh_proc(steps):
    for kind in (b"proc", b"sysfs", b"cgroup", b"cgroup2", b"tmpfs", b"devpts", b"mqueue"):
        steps.attack(
            f"mount {kind.decode()}",
            lambda kind=kind: call(SYS_mount, b"x", b"/tmp", kind, 0, None),
            "EPERM",
        )
        steps.attack(f"fsopen {kind.decode()}", lambda kind=kind: call(SYS_fsopen, kind, 0), "EPERM")
    for flags, name in ((CLONE_NEWPID | CLONE_NEWNS, "pid and mount"), (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS, "user, pid and mount")):
        steps.attack(
            f"first in new {name} namespaces",
            lambda flags=flags: call(SYS_unshare, flags),
            "EPERM",
            bare="ENOSPC",
        )
    steps.works("read /proc", lambda: os.listdir("/proc"))


@row("K-08")
def processes(steps):
    own = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    steps.equal("few processes", len(own) <= 8, True)
    found = set()
    for pid in range(2, 32_768):
        try:
            os.kill(pid, 0)
            found.add(pid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                found.add(pid)
    steps.equal("reached by kill", sorted(found - own), [])
    for pid in (max(own) + 1000, 4_000_000):
        steps.attack(f"pidfd_open {pid}", lambda pid=pid: os.pidfd_open(pid), "ESRCH|EINVAL")
    steps.attack("kill PID 1", lambda: os.kill(1, 9), "SUCCEEDED", root="SUCCEEDED")
    steps.works("and it lives on", lambda: os.kill(1, 0))


@row("K-09")
def first_process(steps):
    for name in ("environ", "maps", "auxv"):
        steps.attack(f"read /proc/1/{name}", lambda name=name: text(f"/proc/1/{name}"), "EACCES|EPERM")
    line = open("/proc/1/cmdline", "rb").read()
    steps.equal("paths in /proc/1/cmdline", b"/" in line, False)
    steps.equal("its name", text("/proc/1/comm").strip(), "manifold")
    steps.works("read its own", lambda: text("/proc/self/environ"))


@row("K-11")
def bounds(steps):
    with open("/dev/shm/fill", "wb") as file:
        block, count = b"x" * (1 << 20), 0
        try:
            while count < 200:
                file.write(block)
                file.flush()
                count += 1
            ended = "no end"
        except OSError as error:
            ended = errno.errorcode[error.errno]
    os.unlink("/dev/shm/fill")
    # Less what other rows left there.
    steps.equal("/dev/shm", (ended, 60 <= count <= 64), ("ENOSPC", True))
    queues = 0
    try:
        while queues < 1000:
            name = f"/q{queues}".encode()
            if libc.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, None) < 0:
                raise OSError(ctypes.get_errno(), "mq_open")
            queues += 1
        ended = "no end"
    except OSError as error:
        ended = errno.errorcode[error.errno]
    steps.equal("message queues end", ended in ("EMFILE", "ENOSPC"), True)
    steps.equal("message queues are few", 0 < queues <= 256, True)


@row("K-12")
def module_loading(steps):
    before = os.listdir("/sys/module")
    allowed = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    for family in set(range(50)) - allowed:
        steps.attack(
            f"socket family {family}",
            lambda family=family: call(41, family, 1, 0),
            "EAFNOSUPPORT",
        )
    steps.attack("mount an unknown file system", lambda: call(SYS_mount, b"x", b"/tmp", b"ntfs", 0, None), "EPERM")
    steps.equal("modules", os.listdir("/sys/module") == before, True)
    steps.works("a UDP socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close())
