"""B: what every dyno starts with."""

import os

from base import row, opens, status, text

#: What bash itself adds to an environment.
SHELLS = {"_", "SHLVL", "PWD", "OLDPWD"}

#: What the profile script of the Python buildpack sets.
BUILDPACKS = {
    "DYNO_RAM",
    "GUNICORN_CMD_ARGS",
    "LANG",
    "PYTHONHASHSEED",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "WEB_CONCURRENCY",
}


@row("B-02")
def no_privileges(steps):
    own = status()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        steps.equal(name, own[name], "0000000000000000")
    steps.equal("Uid", own["Uid"].split(), ["1000"] * 4)
    steps.equal("Gid", own["Gid"].split(), ["1000"] * 4)
    steps.equal("Groups", own["Groups"], "")
    steps.works("open a file of its own", lambda: open("/app/main.py").close())


@row("B-03")
def filtered(steps):
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        own = status(pid)
        steps.equal(f"NoNewPrivs of {own['Name']}", own["NoNewPrivs"], "1")
        steps.equal(f"Seccomp of {own['Name']}", own["Seccomp"], "2")


@row("B-05")
def descriptors(steps):
    # Seen by the first program, before anything of ours opened files.
    steps.equal("descriptors at exec", text("/tmp/descriptors").split(), ["0", "1", "2"])


@row("B-06")
def environment(steps):
    with open(f"/proc/{os.getppid()}/environ", "rb") as file:
        names = {entry.split(b"=")[0].decode() for entry in file.read().split(b"\0") if entry}
    ours = names - SHELLS - BUILDPACKS
    steps.equal("names", sorted(ours), ["CANARY", "CONTROL_SOCKET", "DYNO", "HOME", "PATH", "PS", "STATE"])
    steps.equal("DYNO", os.environ["DYNO"].split(".")[0], "run")
    steps.equal("CANARY", os.environ["CANARY"], "config")


@row("B-07")
def session(steps):
    steps.equal("own session", os.getsid(0) in (os.getpid(), os.getppid(), first()), True)
    steps.equal("session of PID 1 is another", os.getsid(0) != os.getsid(1), True)
    steps.attack("open /dev/tty", opens("/dev/tty", os.O_RDWR), "ENXIO")
    steps.works("open /dev/null", opens("/dev/null", os.O_RDWR))


def first():
    """The dyno's command: the child of PID 1 we descend from."""
    pid = os.getpid()
    while True:
        parent = int(status(pid)["PPid"])
        if parent <= 1:
            return pid
        pid = parent


@row("B-08")
def signals(steps):
    # Of the shell that is the command: Python itself ignores SIGPIPE.
    seen = dict(line.split(":\t") for line in text("/tmp/status").splitlines() if ":\t" in line)
    for name in ("SigBlk", "SigIgn"):
        steps.equal(name, seen[name].strip(), "0000000000000000")
