"""What every attack uses: raw system calls, and steps that say what was seen and what must be.

A step is one line: STEP <tab> row <tab> name <tab> seen <tab> expected. The kernel test compares;
nothing here judges. Each row runs in a child of its own, so that a row that kills its process, or
hangs, is the only one without a result.
"""

import ctypes
import errno
import os
import signal
import sys
import traceback

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

ROWS = {}
#: "user", "root" (all capabilities of the dyno's user namespace), "bare" (and no filter).
AS = "user"


def row(name):
    """Registers a function as the attacks of one row."""

    def put(function):
        ROWS[name] = function
        return function

    return put


def call(number, *arguments):
    """A system call, past libc's wrappers."""
    words = []
    for argument in arguments:
        if isinstance(argument, int):
            argument = ctypes.c_ulong(argument & 0xFFFF_FFFF_FFFF_FFFF)
        words.append(argument)
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def outcome(act):
    """SUCCEEDED, or BLOCKED with the name of the errno; an attack may return its own words."""
    try:
        said = act()
    except OSError as error:
        return "BLOCKED " + errno.errorcode.get(error.errno, str(error.errno))
    return said if isinstance(said, str) else "SUCCEEDED"


def in_child(act):
    """Runs an act in a child: for what changes or kills the process."""

    def run():
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            os.write(write, outcome(act).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read().decode()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return "KILLED " + signal.Signals(os.WTERMSIG(status)).name
        return said

    return run


class Steps:
    """The steps of one row."""

    def __init__(self, name):
        self.name = name

    def say(self, name, seen, expected):
        clean = lambda text: str(text).replace("\t", " ").replace("\n", " ")
        print("STEP", self.name, clean(name), clean(seen), clean(expected), sep="\t", flush=True)

    def attack(self, name, act, expected, root=None, bare=None):
        """Must end as expected: errnos parted by `|`, or words. Roots may have their own."""
        root = root or expected
        want = {"user": expected, "root": root, "bare": bare or root}[AS]
        want = "|".join(
            "BLOCKED " + word if word[:1] == "E" and word.isalnum() else word
            for word in want.split("|")
        )
        self.say(name, outcome(act), want)

    def works(self, name, act):
        """The normal operation beside the blocked one."""
        try:
            act()
            seen = "WORKS"
        except OSError as error:
            seen = "BROKEN " + errno.errorcode.get(error.errno, str(error.errno))
        self.say(name, seen, "WORKS")

    def equal(self, name, seen, expected):
        self.say(name, seen, expected)


def status(pid="self"):
    """/proc/PID/status as a dictionary."""
    with open(f"/proc/{pid}/status") as file:
        pairs = (line.rstrip("\n").split(":\t", 1) for line in file)
        return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def text(path):
    with open(path, errors="replace") as file:
        return file.read()


def opens(path, flags=os.O_RDONLY):
    """An act that opens a file."""

    def act():
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))

    return act


def run(names):
    for name in names:
        child = os.fork()
        if child == 0:
            signal.alarm(120)
            try:
                ROWS[name](Steps(name))
                os._exit(0)
            except BaseException:
                lines = traceback.format_exc().splitlines()
                Steps(name).say("the probe itself", "; ".join(lines[-3:]), "no fault")
                os._exit(1)
        _, ended = os.waitpid(child, 0)
        if os.WIFSIGNALED(ended):
            Steps(name).say("the probe itself", f"ended by {os.WTERMSIG(ended)}", "no fault")


def main():
    global AS
    AS = sys.argv[1]
    run(sys.argv[2:])
