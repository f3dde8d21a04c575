"""U: privileges and user namespaces."""

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import threading

from base import call, in_child, opens, row, status, text

SYS_clone, SYS_clone3, SYS_unshare, SYS_setns = 56, 435, 272, 308
SYS_ptrace, SYS_process_vm_readv, SYS_kcmp, SYS_pidfd_getfd = 101, 310, 312, 438
SYS_add_key, SYS_request_key, SYS_keyctl = 248, 249, 250
SYS_prctl, SYS_personality, SYS_modify_ldt, SYS_arch_prctl = 157, 135, 154, 158
SIGCHLD = 17

NAMESPACES = {
    "time": 0x80,
    "mnt": 0x2_0000,
    "cgroup": 0x200_0000,
    "uts": 0x400_0000,
    "ipc": 0x800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}


@row("U-01")
def set_user_id(steps):
    # Planted by the test: copies of `id`, root's with the bits set, and with capabilities.
    for name in ("planted-setuid", "planted-capabilities"):
        path = "/app/" + name
        steps.equal(f"{name}: uid", subprocess.run([path, "-u"], capture_output=True).stdout, b"1000\n")
    with_capabilities = subprocess.run(
        ["/app/planted-cat", "/proc/self/status"], capture_output=True, text=True
    ).stdout
    for name in ("CapPrm", "CapEff"):
        line = next(line for line in with_capabilities.splitlines() if line.startswith(name))
        steps.equal(f"file capabilities: {name}", line.split()[1], "0000000000000000")
    for program in ("su", "newgrp", "ping", "sudo", "pkexec", "mount"):
        path = shutil.which(program)
        if path is None:
            continue
        if program == "su":
            done = subprocess.run([path, "-c", "id -u"], capture_output=True, stdin=subprocess.DEVNULL)
            steps.equal("su", b"0\n" in done.stdout, False)
    steps.works("run id", lambda: subprocess.run(["id"], capture_output=True, check=True))


@row("U-04")
def namespaces(steps):
    for name, flag in NAMESPACES.items():
        bare = "ENOSPC"
        steps.attack(f"unshare {name}", in_child(lambda flag=flag: call(SYS_unshare, flag)), "EPERM", bare=bare)
        steps.attack(
            f"setns {name}",
            in_child(lambda name=name, flag=flag: join(name, flag)),
            "EPERM",
            # Of the namespaces only the user namespace is its own, and a process is in it already.
            bare="EPERM|EINVAL" if name != "user" else "EINVAL",
        )
        if name != "time":
            steps.attack(
                f"clone {name}",
                lambda flag=flag: end(call(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0)),
                "EPERM",
                bare=bare,
            )
            steps.attack(f"clone3 {name}", lambda flag=flag: end(clone3(flag)), "ENOSYS", bare=bare)
    limit = text("/proc/sys/user/max_user_namespaces").strip()
    steps.equal("max_user_namespaces", limit, "0")
    ran = []
    thread = threading.Thread(target=lambda: ran.append(1))
    thread.start()
    thread.join()
    steps.equal("a thread ran", ran, [1])
    steps.attack("fork", in_child(lambda: None), "SUCCEEDED")


def join(name, flag):
    file = "/proc/self/ns/" + ("pid_for_children" if name == "pid" else name)
    descriptor = os.open(file, os.O_RDONLY)
    call(SYS_setns, descriptor, flag)


def clone3(flags):
    arguments = (ctypes.c_uint64 * 11)()
    arguments[0], arguments[4] = flags, SIGCHLD
    return call(SYS_clone3, arguments, 88)


def end(pid):
    """A child that should not have been made ends at once."""
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@row("U-05")
def network_power(steps):
    steps.attack("add a link", lambda: route(16, struct.pack("BxHiII", 0, 0, 0, 0, 0) + attribute(3, b"evil0\0") + attribute(18, attribute(1, b"dummy"))), "EPERM")
    steps.attack("turn a link off", lambda: route(16, struct.pack("BxHiII", 0, 0, 1, 0, 1)), "EPERM")
    steps.attack("add an address", lambda: route(20, struct.pack("BBBBi", 2, 8, 0, 0, 1) + attribute(2, bytes([10, 9, 8, 7]))), "EPERM")
    steps.attack("add a route", lambda: route(24, struct.pack("BBBBBBBBI", 2, 32, 0, 0, 254, 3, 253, 1, 0) + attribute(1, bytes([10, 9, 8, 7])) + attribute(4, struct.pack("i", 1))), "EPERM")
    steps.attack("a traffic control discipline", lambda: route(36, struct.pack("BxxxiIII", 0, 1, 0x1_0000, 0xFFFF_FFFF, 0) + attribute(1, b"pfifo\0")), "EPERM")
    steps.attack("netfilter", netfilter, "EAFNOSUPPORT", bare="EPERM")
    for name in ("ipv4/ip_forward", "ipv4/conf/all/forwarding", "core/somaxconn"):
        steps.attack(name, opens("/proc/sys/net/" + name, os.O_WRONLY), "EACCES|EROFS|ENOENT")
    for kind, name in ((socket.SOCK_RAW, "raw"), (10, "packet")):
        steps.attack(f"{name} socket", lambda kind=kind: socket.socket(socket.AF_INET, kind, 1), "EPERM|EPROTONOSUPPORT|EINVAL|ESOCKTNOSUPPORT|EAFNOSUPPORT")
    steps.works("list links", socket.if_nameindex)
    steps.works("a UDP socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close())


def attribute(kind, value):
    length = 4 + len(value)
    return struct.pack("HH", length, kind) + value + b"\0" * (-length % 4)


def ask(protocol, kind, flags, body):
    """One netlink request; raises what the kernel answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as link:
        head = struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0)
        link.send(head + body)
        link.settimeout(10)
        answer = link.recv(4096)
    code = struct.unpack_from("i", answer, 16)[0]
    if code:
        raise OSError(-code, os.strerror(-code))


def route(kind, body):
    ask(0, kind, 0x605, body)  # request, acknowledge, create, exclusively


def netfilter():
    """A batch that makes a table."""
    head = lambda kind, flags, number, body: struct.pack("IHHII", 16 + len(body), kind, flags, number, 0) + body
    batch = struct.pack("BBH", 0, 0, socket.htons(10))
    table = struct.pack("BBH", 2, 0, 0) + attribute(1, b"evil\0")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as link:
        link.settimeout(10)
        link.send(head(16, 1, 0, batch) + head(0xA00, 0x405, 1, table) + head(17, 1, 2, batch))
        answer = link.recv(4096)
    code = struct.unpack_from("i", answer, 16)[0]
    if code:
        raise OSError(-code, os.strerror(-code))


@row("U-06")
def groups(steps):
    steps.equal("groups", os.getgroups(), [])
    # Its own namespace's root may take groups of its own ids: nobody else's.
    steps.attack("setgroups", in_child(lambda: os.setgroups([0, 5])), "EPERM", root="SUCCEEDED")
    steps.attack("an unmapped group", in_child(lambda: os.setgroups([70_000])), "EPERM", root="EINVAL")
    steps.attack("an unmapped user", in_child(lambda: os.setresuid(70_000, 70_000, 70_000)), "EINVAL")
    steps.equal("maps", text("/proc/self/uid_map").split()[0::2], ["0", "65536"])


@row("U-08")
def other_processes(steps):
    gone = "EPERM"
    buffer = ctypes.create_string_buffer(64)
    words = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 64)
    for pid in (1, 2_000, 30_000):
        missing = "EPERM" if pid == 1 else "ESRCH"
        steps.attack(f"ptrace {pid}", lambda pid=pid: call(SYS_ptrace, 16, pid, 0, 0), gone, bare=missing)
        steps.attack(f"process_vm_readv {pid}", lambda pid=pid: call(SYS_process_vm_readv, pid, words, 1, words, 1, 0), gone, bare=missing)
        steps.attack(f"kcmp {pid}", lambda pid=pid: call(SYS_kcmp, os.getpid(), pid, 0, 0, 0), gone, bare=missing)
    steps.attack("pidfd_getfd", lambda: call(SYS_pidfd_getfd, os.pidfd_open(1), 0, 0), "EPERM")
    steps.attack("memory of a host process", opens("/proc/30000/mem"), "ENOENT")
    steps.works("pidfd of its own", lambda: os.close(os.pidfd_open(os.getpid())))


@row("U-09")
def keyrings(steps):
    steps.attack("add_key", lambda: call(SYS_add_key, b"user", b"canary", b"x", 1, -4), "EPERM", bare="SUCCEEDED")
    steps.attack("request_key", lambda: call(SYS_request_key, b"user", b"nobody-has-this", None, -3), "EPERM", bare="ENOKEY")
    steps.attack("describe the session keyring", session_owner, "EPERM", bare="its own")
    # Every dyno adds this key; who came first must not be found by the next.
    steps.attack("find another dyno's key", lambda: call(SYS_keyctl, 10, -3, b"user", b"left-by-a-dyno", 0), "EPERM", bare="ENOKEY")
    steps.attack("leave one", lambda: call(SYS_add_key, b"user", b"left-by-a-dyno", b"x", 1, -3), "EPERM", bare="SUCCEEDED")
    steps.works("its status", lambda: status())


def session_owner():
    """Whose the session keyring is: `keyring;UID;GID;PERM;NAME`."""
    buffer = ctypes.create_string_buffer(256)
    call(SYS_keyctl, 6, -3, buffer, 256)
    kind, uid, *_ = buffer.value.decode().split(";")
    return "its own" if kind == "keyring" and int(uid) == os.getuid() else f"of {uid}"


@row("U-10")
def services(steps):
    for path in ("/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/notify",
                 "/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock",
                 "/run/manifold/manifold.sock", "/run/snapd.socket", "/run/user/0/bus"):
        steps.attack(path, lambda path=path: socket.socket(socket.AF_UNIX).connect(path), "ENOENT")
    found = [os.path.join(folder, name) for folder, _, files in os.walk("/run") for name in files]
    steps.equal("/run", found, [])
    steps.works("a socket of its own", lambda: socket.socket(socket.AF_UNIX).bind("/tmp/own"))


@row("U-11")
def odd_calls(steps):
    steps.attack("PR_SET_MM", in_child(lambda: call(SYS_prctl, 35, 1, 0x1000, 0, 0)), "EPERM|EINVAL")
    steps.attack("PR_SET_SECUREBITS", in_child(lambda: call(SYS_prctl, 28, 1, 0, 0, 0)), "EPERM", root="SUCCEEDED")
    steps.attack("PR_SET_PTRACER any", in_child(lambda: call(SYS_prctl, 0x59616D61, -1, 0, 0, 0)), "SUCCEEDED|EINVAL")
    steps.attack("personality ADDR_NO_RANDOMIZE", lambda: call(SYS_personality, 0x004_0000), "EPERM")
    steps.attack("personality READ_IMPLIES_EXEC", lambda: call(SYS_personality, 0x040_0000), "EPERM")
    steps.attack("modify_ldt", lambda: call(SYS_modify_ldt, 0, 0, 0), "EPERM")
    steps.attack("iopl", lambda: call(172, 3), "EPERM")
    steps.attack("ioperm", lambda: call(173, 0, 8, 1), "EPERM")
    place = ctypes.c_uint64()
    steps.works("arch_prctl ARCH_GET_FS", lambda: call(SYS_arch_prctl, 0x1003, ctypes.byref(place)))
    steps.works("personality asks", lambda: call(SYS_personality, 0xFFFF_FFFF))
