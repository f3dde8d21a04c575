"""Runs `sleep 1000` as the process of this number, as another that happens to get it would."""
import ctypes
import os
import signal
import struct
import sys

number = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
wanted = (ctypes.c_int * 1)(number)
# clone3(2): flags, three descriptors, the signal of its end, stack, size, tls, set_tid, its size.
call = struct.pack("=10Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1)
child = libc.syscall(435, call, len(call))
if child == 0:
    os.execvp("sleep", ["sleep", "1000"])
if child < 0:
    sys.exit("clone3: " + os.strerror(ctypes.get_errno()))
print("taken", flush=True)
_, status = os.waitpid(child, 0)
print("ended", os.waitstatus_to_exitcode(status), flush=True)
