"""Starts a program the way a careless shell would: nothing of this may reach a dyno."""

import ctypes
import os
import resource
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
os.nice(2)
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("300")
os.umask(0o077)
libc.prctl(29, 1_000_000)  # PR_SET_TIMERSLACK
libc.personality(0x0040000)  # ADDR_NO_RANDOMIZE
for name in (signal.SIGPIPE, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(name, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGALRM])
for name, soft in ((resource.RLIMIT_STACK, 1 << 20), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_MEMLOCK, 4096)):
    resource.setrlimit(name, (soft, resource.getrlimit(name)[1]))
libc.syscall(250, 1, b"host-session")  # KEYCTL_JOIN_SESSION_KEYRING
libc.syscall(248, b"user", b"host-canary", b"secret", 6, -3)  # add_key
leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
os.set_inheritable(leaked, True)
os.environ["HOST_CANARY"] = "secret"
os.execv(sys.argv[1], sys.argv[1:])
