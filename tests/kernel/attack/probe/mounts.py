"""F: root file system and mounts."""

import ctypes
import os
import re
import stat

from base import call, in_child, opens, row, text

MS_REMOUNT, MS_BIND, MS_MOVE = 32, 4096, 8192
SYS_mount, SYS_umount2, SYS_move_mount, SYS_mount_setattr = 165, 166, 429, 442
SYS_pivot_root, SYS_chroot, SYS_open_tree = 155, 161, 428
SYS_name_to_handle_at, SYS_open_by_handle_at = 303, 304
SYS_statmount, SYS_listmount = 457, 458

#: A program and a directory of the shared, read-only stack.
PROGRAM, FOLDER = "/usr/bin/env", "/usr/bin"


def mountinfo():
    """Mount point, flags of the mount, type, source, options of the file system, root in it."""
    for line in text("/proc/self/mountinfo").splitlines():
        left, right = line.split(" - ")
        words, rest = left.split(" "), right.split(" ")
        yield words[4], words[5].split(","), rest[0], rest[1], rest[2], words[3]


@row("F-01")
def shared_layers(steps):
    steps.attack("open for writing", opens(PROGRAM, os.O_RDWR), "EACCES", root="EROFS")
    steps.attack("truncate", lambda: os.truncate(PROGRAM, 0), "EACCES|EROFS")
    steps.attack("chmod", lambda: os.chmod(PROGRAM, 0o777), "EROFS")
    steps.attack("chown", lambda: os.chown(PROGRAM, os.getuid(), -1), "EROFS")
    steps.attack("unlink", lambda: os.unlink(PROGRAM), "EROFS")
    steps.attack("rename", lambda: os.rename(PROGRAM, FOLDER + "/x"), "EROFS")
    steps.attack("hard link", lambda: os.link(PROGRAM, FOLDER + "/x"), "EROFS")
    steps.attack("link out", lambda: os.link(PROGRAM, "/app/x"), "EXDEV|EPERM")
    steps.attack("mkdir", lambda: os.mkdir(FOLDER + "/x"), "EROFS")
    steps.attack("create", opens(FOLDER + "/x", os.O_CREAT | os.O_WRONLY), "EROFS|EACCES")
    steps.attack("xattr", lambda: os.setxattr(PROGRAM, "user.x", b"1"), "EROFS|EACCES|EPERM")
    steps.attack("times", lambda: os.utime(PROGRAM), "EROFS")
    # A file of the stack's own root: a user may not, root gets a copy that is its own.
    steps.attack("a file of /etc", opens("/etc/passwd", os.O_RDWR), "EACCES", root="SUCCEEDED")
    with open("/app/base.py", "a") as file:
        file.write("# changed here only\n")
    steps.works("write its own files", opens("/app/new", os.O_CREAT | os.O_RDWR))


@row("F-06")
def old_root(steps):
    here = os.stat("/")

    def climb():
        os.chdir("/")
        for _ in range(64):
            os.chdir("..")
        there = os.stat(".")
        return "the same root" if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) else "out"

    def escape():
        os.makedirs("/tmp/jail", exist_ok=True)
        os.chroot("/tmp/jail")
        return climb_from_jail()

    def climb_from_jail():
        for _ in range(64):
            os.chdir("..")
        there = os.stat(".")
        return "the same root" if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) else "out"

    steps.attack("climb from /", in_child(climb), "the same root")
    steps.attack("chroot and climb", in_child(escape), "EPERM", bare="the same root")
    steps.attack("readlink /proc/1/root", lambda: os.readlink("/proc/1/root"), "EACCES")
    steps.attack("enter /proc/1/root", lambda: os.chdir("/proc/1/root"), "EACCES")
    steps.attack("readlink /proc/1/cwd", lambda: os.readlink("/proc/1/cwd"), "EACCES")
    steps.attack("pivot_root", lambda: call(SYS_pivot_root, b".", b"."), "EPERM")
    roots = [point for point, *_ in mountinfo() if point == "/"]
    steps.equal("mounts at /", len(roots), 1)
    steps.works("chdir", lambda: os.chdir("/app"))


@row("F-08")
def locked_mounts(steps):
    remount = MS_REMOUNT | MS_BIND
    for point in ("/usr", "/proc/sys", "/sys", "/dev"):
        steps.attack(
            f"remount {point} writable",
            lambda point=point: call(SYS_mount, b"none", point.encode(), None, remount, None),
            "EPERM",
        )
    for point in ("/proc/keys", "/sys/firmware", "/proc/sys", "/usr", "/"):
        steps.attack(
            f"umount {point}",
            lambda point=point: call(SYS_umount2, point.encode(), 2),
            "EPERM",
        )
    steps.attack("bind", lambda: call(SYS_mount, b"/app", b"/tmp", None, MS_BIND, None), "EPERM")
    steps.attack("move", lambda: call(SYS_mount, b"/proc", b"/tmp", None, MS_MOVE, None), "EPERM")
    steps.attack(
        "move_mount", lambda: call(SYS_move_mount, -100, b"/proc", -100, b"/tmp", 0), "EPERM"
    )
    attributes = (ctypes.c_uint64 * 4)(0, 1, 0, 0)  # clear RDONLY
    steps.attack(
        "mount_setattr",
        lambda: call(SYS_mount_setattr, -100, b"/usr", 0, attributes, 32),
        "EPERM",
    )
    steps.attack("open_tree", lambda: call(SYS_open_tree, -100, b"/usr", 1), "EPERM")
    steps.attack("mount tmpfs", lambda: call(SYS_mount, b"x", b"/tmp", b"tmpfs", 0, None), "EPERM")
    steps.works("read a mount", lambda: os.listdir("/usr"))


@row("F-09")
def flags(steps):
    executable = {"/", "/usr"}
    for point, options, kind, *_ in mountinfo():
        steps.equal(f"{point} is nosuid", "nosuid" in options, True)
        covered = os.path.exists(point) and stat.S_ISCHR(os.stat(point).st_mode)
        has_devices = point in ("/dev", "/dev/pts") or covered
        steps.equal(f"{point} is nodev", "nodev" in options, not has_devices)
        steps.equal(f"{point} is noexec", "noexec" in options, point not in executable)
    for folder in ("/dev/shm",):
        steps.attack(f"run from {folder}", in_child(lambda folder=folder: run_from(folder)), "EACCES|ENOSYS")
    steps.attack("a set-user-id copy", in_child(suid_copy), "no gain")
    steps.works("run from /app", lambda: copy("/usr/bin/true", "/app/true"))


def copy(source, target):
    with open(source, "rb") as file:
        code = file.read()
    with open(target, "wb") as file:
        file.write(code)
    os.chmod(target, 0o755)


def run_from(folder):
    copy("/usr/bin/true", folder + "/true")
    os.execv(folder + "/true", ["true"])


def suid_copy():
    """A set-user-id program of somebody else where we can make one, of our own where not."""
    copy("/usr/bin/id", "/app/id")
    if os.getuid() == 0:
        os.chown("/app/id", 1234, 1234)
    os.chmod("/app/id", 0o6755)
    with os.popen("/app/id -u") as output:
        euid = int(output.read())
    return "no gain" if euid == os.getuid() else f"became {euid}"


@row("F-10")
def overlay_attributes(steps):
    os.makedirs("/app/layer", exist_ok=True)
    for name in ("trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy"):
        steps.attack(
            name, lambda name=name: os.setxattr("/app/layer", name, b"y"), "EPERM|EOPNOTSUPP"
        )
    # Harmless without the option `userxattr`: what lies below stays visible.
    try:
        os.setxattr("/app", "user.overlay.opaque", b"y")
    except OSError:
        pass
    steps.equal("the slug is still there", os.path.exists("/app/base.py"), True)
    options = next(options for point, _, _, _, options, _ in mountinfo() if point == "/")
    for name in ("redirect_dir=on", "metacopy=on", "userxattr", "index=on"):
        steps.equal(name, name in options.split(","), False)
    steps.equal("upper layer by path", [p for p in ("/upper", "/work", "/0", "/1") if os.path.exists(p)], [])


@row("F-11")
def host_paths(steps):
    for point, _, kind, source, options, root in mountinfo():
        steps.equal(f"root of {point}", root in ("/", "/usr", "/null", "/dev", "/sys") or kind in ("proc", "tmpfs"), True)
        if kind == "overlay":
            layers = re.findall(r"(?:lowerdir|upperdir|workdir)\+?=([^,]*)", options)
            meaningless = [name for name in layers if re.fullmatch(r"[0-9:]+|upper/(upper|work)", name)]
            steps.equal("layer names", layers, meaningless)
    steps.equal("the state directory", "/manifold" in text("/proc/self/mountinfo"), False)


@row("F-15")
def mount_listing(steps):
    buffer = (ctypes.c_uint64 * 64)()
    steps.attack("listmount", lambda: call(SYS_listmount, buffer, buffer, 32, 0), "ENOSYS")
    steps.attack("statmount", lambda: call(SYS_statmount, buffer, buffer, 512, 0), "ENOSYS")
    steps.attack(
        "name_to_handle_at",
        lambda: call(SYS_name_to_handle_at, -100, b"/", buffer, buffer, 0),
        "EPERM",
    )
    steps.attack(
        "open_by_handle_at", lambda: call(SYS_open_by_handle_at, 0, buffer, 0), "EPERM"
    )
    steps.works("statfs", lambda: os.statvfs("/"))
