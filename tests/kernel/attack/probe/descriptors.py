"""E: descriptors, and the memory of what made the dyno."""

import ctypes
import os

from base import call, in_child, opens, row, text

SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev = 101, 310, 311
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206


@row("E-01")
def programs(steps):
    for pid in [name for name in os.listdir("/proc") if name.isdigit()] + ["self"]:
        path = f"/proc/{pid}/exe"
        for flags, word in ((os.O_WRONLY, "write"), (os.O_RDWR | os.O_TRUNC, "truncate")):
            # ETXTBSY and EROFS: a program of the stack; EACCES: PID 1 is ours, not to be read.
            steps.attack(f"{word} {path}", opens(path, flags), "EACCES|ETXTBSY|EROFS|ENOENT")
    steps.attack("read /proc/1/exe", opens("/proc/1/exe"), "EACCES")
    steps.attack("readlink /proc/1/exe", lambda: os.readlink("/proc/1/exe"), "EACCES")
    steps.attack("run /proc/1/exe", in_child(lambda: os.execv("/proc/1/exe", ["x"])), "EACCES")

    def interpreter():
        with open("/app/loop", "w") as file:
            file.write("#!/proc/self/exe\nimport os; os._exit(0)\n")
        os.chmod("/app/loop", 0o755)
        return f"ended with {os.spawnv(os.P_WAIT, '/app/loop', ['/app/loop'])}"

    # It is the caller's own program that runs: nothing of the platform's.
    steps.attack("#!/proc/self/exe", in_child(interpreter), "ended with 0")
    steps.works("read its own program", opens("/proc/self/exe"))


@row("E-02")
def working_directory(steps):
    steps.equal("at start", text("/tmp/cwd").strip(), "/app")
    steps.equal("now", os.getcwd(), "/app")
    # Low numbers are this program's own files and pipes.
    for number in range(16, 64):
        steps.attack(
            f"chdir /proc/self/fd/{number}",
            lambda number=number: os.chdir(f"/proc/self/fd/{number}"),
            "ENOENT",
        )
    steps.works("chdir /tmp", lambda: os.chdir("/tmp"))


@row("E-03")
def inherited(steps):
    steps.equal("descriptors at exec", text("/tmp/descriptors").split(), ["0", "1", "2"])
    kinds = {os.readlink(f"/proc/{first()}/fd/{n}").split(":")[0] for n in (0, 1, 2)}
    steps.equal("what they are", kinds, {"pipe"})
    steps.attack("list /proc/1/fd", lambda: os.listdir("/proc/1/fd"), "EACCES")
    for number in range(8):
        steps.attack(f"open /proc/1/fd/{number}", opens(f"/proc/1/fd/{number}"), "EACCES")


def first():
    """The oldest of ours: the command's shell, which has opened nothing."""
    return min(int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1")


@row("E-05")
def memory(steps):
    for name in ("mem", "maps", "smaps", "environ", "auxv", "stack", "syscall", "pagemap", "io"):
        steps.attack(f"open /proc/1/{name}", reads(f"/proc/1/{name}"), "EACCES|EPERM|ENOENT")
    buffer = ctypes.create_string_buffer(64)
    words = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 64)
    for number, name in ((SYS_process_vm_readv, "readv"), (SYS_process_vm_writev, "writev")):
        steps.attack(
            f"process_vm_{name}",
            lambda number=number: call(number, 1, words, 1, words, 1, 0),
            "EPERM",
        )
    for request, name in ((PTRACE_ATTACH, "attach"), (PTRACE_SEIZE, "seize")):
        steps.attack(
            f"ptrace {name}", lambda request=request: call(SYS_ptrace, request, 1, 0, 0), "EPERM"
        )
    steps.works("read its own memory map", reads("/proc/self/maps"))


def reads(path):
    def act():
        with open(path, "rb") as file:
            file.read(16)

    return act
