"""Y: the system-call filter, C: control groups as seen from inside."""

import ctypes
import errno
import fcntl
import mmap
import os
import pty
import signal
import socket
import struct
import threading

from base import call, in_child, libc, opens, outcome, row, text
from kernel import seen, writable

#: Calls that do not come back, or make a process: allowed, and tried by everything else here.
SPECIAL = {15: "rt_sigreturn", 34: "pause", 57: "fork", 58: "vfork", 60: "exit", 231: "exit_group"}

#: Newer kernels let these past every filter: they only work from a trampoline of the kernel's own.
PROBES = {335: "uretprobe", 336: "uprobe"}

#: Allowed calls that the kernel itself may answer with EPERM when their arguments are nonsense.
OWN_EPERM = {"setgroups", "setpgid", "setsid", "kill", "process_mrelease", "sched_setscheduler",
             "setpriority", "ioprio_set", "memfd_secret", "fchmodat2", "mlock2", "mlockall", "mlock"}


@row("Y-01")
def every_number(steps):
    table = {}
    for line in text("/app/syscalls.txt").splitlines():
        if not line.startswith("#"):
            number, name, verdict = line.split()
            table[int(number)] = (name, verdict)
    answers = ask_all([n for n, (_, verdict) in table.items() if verdict != "arguments" and n not in SPECIAL])
    wrong = []
    for number, answer in answers.items():
        name, verdict = table[number]
        if verdict == "allow":
            # An older kernel does not know the newest ones: from 424 on.
            is_old = number < 424 and name != "futex"  # -1 is no operation of futex
            is_wrong = (answer == "ENOSYS" and is_old) or (answer == "EPERM" and name not in OWN_EPERM)
        else:
            is_wrong = answer != verdict and number not in PROBES
        if is_wrong:
            wrong.append(f"{number} {name}: {answer}, not {verdict}")
    steps.equal("numbers that differ from the table", wrong, [])
    steps.equal("numbers asked", len(answers), sum(v != "arguments" for _, v in table.values()) - len(SPECIAL))
    steps.works("a call", lambda: call(39))


def ask_all(numbers):
    """The errno of each call with all arguments -1, in children: some end or stop the caller."""
    answers = {}
    todo = list(numbers)
    while todo:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            signal.alarm(10)
            for number in todo:
                ctypes.set_errno(0)
                result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
                code = ctypes.get_errno() if result == -1 else 0
                os.write(write, struct.pack("ii", number, code))
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
        os.waitpid(child, 0)
        for number, code in struct.iter_unpack("ii", data[: len(data) // 8 * 8]):
            answers[number] = errno.errorcode.get(code, "0")
        left = [number for number in todo if number not in answers]
        if left and len(left) < len(todo) or left:
            # The first unanswered one ended the child: it went through.
            answers[left[0]] = "ended"
            left = left[1:]
        todo = left
    return answers


@row("Y-02")
def other_abis(steps):
    # mov eax, 20 (getpid); int 0x80; ret
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    i386 = ctypes.CFUNCTYPE(ctypes.c_int)(address)
    steps.attack("i386 getpid by int 0x80", in_child(lambda: f"answered {i386()}"), "KILLED SIGSYS")
    for number, name in ((39, "getpid"), (1, "write"), (165, "mount"), (272, "unshare"), (520, "execve")):
        steps.attack(f"x32 {name}", lambda number=number: call(number | 0x4000_0000), "ENOSYS")
    steps.works("getpid", lambda: call(39))


@row("Y-03")
def namespaces(steps):
    for number, name in ((165, "mount"), (166, "umount2"), (155, "pivot_root"), (161, "chroot"),
                         (308, "setns"), (272, "unshare"), (428, "open_tree"), (429, "move_mount"),
                         (430, "fsopen"), (431, "fsconfig"), (432, "fsmount"), (433, "fspick"),
                         (442, "mount_setattr")):
        steps.attack(name, lambda number=number: call(number, 0, 0, 0, 0, 0), "EPERM")
    steps.attack("clone3", lambda: call(435, 0, 0), "ENOSYS")
    steps.attack("clone with a namespace flag", lambda: call(56, 0x1000_0011, 0, 0, 0, 0), "EPERM")
    ran = []
    threads = [threading.Thread(target=ran.append, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps.equal("threads that ran", len(ran), 8)


@row("Y-04")
def dangerous(steps):
    calls = {
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "keyctl": 250, "add_key": 248,
        "request_key": 249, "kexec_load": 246, "kexec_file_load": 320, "init_module": 175,
        "finit_module": 313, "delete_module": 176, "open_by_handle_at": 304, "lookup_dcookie": 212,
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438,
        "swapon": 167, "swapoff": 168, "reboot": 169, "quotactl": 179, "acct": 163,
        "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305,
        "vhangup": 153, "iopl": 172, "ioperm": 173, "move_pages": 279, "migrate_pages": 256,
        "mbind": 237, "set_mempolicy": 238, "fanotify_init": 300, "kcmp": 312, "syslog": 103,
        "sethostname": 170, "setdomainname": 171, "nfsservctl": 180, "quotactl_fd": 443,
        "process_madvise": 440, "seccomp": 317, "uselib": 134, "create_module": 174,
    }
    for name, number in calls.items():
        steps.attack(name, lambda number=number: call(number, 0, 0, 0, 0, 0, 0), "EPERM|ENOSYS")
    steps.works("getrandom", lambda: os.getrandom(8))


@row("Y-05")
def families(steps):
    allowed = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    got = set()
    for family in range(50):
        for kind in (1, 2, 3, 5):
            try:
                os.close(call(41, family, kind, 0))
                got.add(family)
            except OSError as error:
                if family not in allowed:
                    steps.equal(f"family {family} type {kind}", errno.errorcode[error.errno], "EAFNOSUPPORT")
    steps.equal("families", sorted(got), sorted(map(int, allowed)))
    for kind in (socket.SOCK_RAW,):
        for family in (socket.AF_INET, socket.AF_INET6):
            steps.attack(f"raw socket of family {family}", lambda family=family, kind=kind: socket.socket(family, kind, 1), "EPERM")
    for protocol in range(1, 24):
        steps.attack(f"netlink protocol {protocol}", lambda protocol=protocol: call(41, 16, 3, protocol), "EAFNOSUPPORT")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            steps.works(f"family {family} type {kind}", lambda family=family, kind=kind: socket.socket(family, kind).close())
    steps.works("socket pair", lambda: [end.close() for end in socket.socketpair()])


@row("F-14")
@row("Y-06")
def page_cache(steps):
    """The known routes from a read-only file's page cache to a write: the file must not change."""
    for path in ("/usr/bin/env", "/etc/passwd", "/app/planted-canary"):
        if not os.path.exists(path):
            continue
        with open(path, "rb") as file:
            before = file.read()
        dirty_pipe(path)
        vmsplice_over(path)
        with open(path, "rb") as file:
            steps.equal(f"{path} is unchanged", file.read() == before, True)
    steps.attack("AF_ALG", lambda: call(41, 38, 5, 0), "EAFNOSUPPORT")
    steps.attack("io_uring_setup", lambda: call(425, 8, bytes(120)), "EPERM")
    steps.attack("userfaultfd", lambda: call(323, 0), "EPERM")
    steps.attack("a shared writable mapping", writable_mapping, "EACCES|EROFS", root="EROFS")
    steps.works("splice", splice)


def dirty_pipe(path):
    """CVE-2022-0847: fill a pipe so that its buffers may be merged, splice a page in, write."""
    read, write = os.pipe()
    try:
        size = fcntl.fcntl(write, 1032)
        os.write(write, b"x" * size)
        os.read(read, size)
        with open(path, "rb") as file:
            os.splice(file.fileno(), write, 1, offset_src=0)
        os.write(write, b"OVERWRITTEN")
    finally:
        os.close(read)
        os.close(write)


def vmsplice_over(path):
    """Gift the pages of a private mapping to a pipe and write to them afterwards."""
    with open(path, "rb") as file:
        page = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    read, write = os.pipe()
    try:
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        words = (ctypes.c_uint64 * 2)(address, 8)
        try:
            call(278, write, words, 1, 8)  # SPLICE_F_GIFT
        except OSError:
            pass
        page[0:4] = b"EVIL"
    finally:
        os.close(read)
        os.close(write)


def writable_mapping():
    with open("/usr/bin/env", "r+b") as file:
        mmap.mmap(file.fileno(), 64)


def splice():
    read, write = os.pipe()
    with open("/app/base.py", "rb") as file:
        os.splice(file.fileno(), write, 16, offset_src=0)
    os.read(read, 16)


@row("Y-07")
def injection(steps):
    def on_terminal(request):
        def act():
            _, slave = pty.openpty()
            os.setsid()
            fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
            call(16, slave, request, ctypes.create_string_buffer(b"i"))

        return in_child(act)

    for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
        for high in (0, 1, 0xFFFF_FFFF):
            steps.attack(f"{name} with {high:#x} in the high bits", on_terminal(request | high << 32), "EPERM")
    steps.works("TIOCGWINSZ", lambda: fcntl.ioctl(pty.openpty()[1], 0x5413, b"\0" * 8))


@row("Y-08")
def special_bits(steps):
    for mode in (0o4755, 0o2755, 0o1755):
        path = f"/app/bits-{mode:o}"
        open(path, "w").close()
        os.chmod(path, mode)
        # They may be set; nosuid and no_new_privs make them mean nothing (F-09, U-01).
        steps.equal(f"mode {mode:o} on a nosuid mount", bool(os.statvfs(path).f_flag & os.ST_NOSUID), True)
    steps.works("chmod", lambda: os.chmod("/app/base.py", 0o600))


@row("C-01")
def release_agent(steps):
    for kind in (b"cgroup", b"cgroup2"):
        for data in (None, b"memory", b"none,name=x"):
            steps.attack(
                f"mount {kind.decode()} {data}",
                lambda kind=kind, data=data: call(165, b"x", b"/tmp", kind, 0, data),
                "EPERM",
            )
    found = [os.path.join(folder, name) for folder, _, files in os.walk("/sys/fs/cgroup") for name in files if name in ("release_agent", "notify_on_release")]
    steps.equal("release_agent and notify_on_release", [path for path in found if outcome(opens(path, os.O_WRONLY)) == "SUCCEEDED"], [])
    steps.works("read its groups", lambda: text("/proc/self/cgroup"))


@row("C-02")
def control_files(steps):
    steps.equal("writable below /sys/fs/cgroup", writable("/sys/fs/cgroup"), [])
    steps.attack("make a group", lambda: os.mkdir("/sys/fs/cgroup/x"), "EROFS|EACCES|EPERM")
    steps.works("read its groups", lambda: text("/proc/self/cgroup"))


@row("C-03")
def root_of_groups(steps):
    for pid in ("self", "1"):
        for line in text(f"/proc/{pid}/cgroup").splitlines():
            hierarchy, controllers, path = line.split(":", 2)
            steps.equal(f"{pid}: {controllers or 'v2'}", path, "/")


@row("C-06")
def device_nodes(steps):
    steps.attack("a node of the slug", opens("/app/planted-node"), "EACCES")
    steps.attack("mknod", lambda: call(133, b"/tmp/node", 0o20666, os.makedev(1, 1)), "EPERM")
    steps.works("/dev/null", opens("/dev/null", os.O_RDWR))
