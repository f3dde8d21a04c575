"""A worker that ignores SIGTERM."""

import signal
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("stubborn stays", flush=True)
while True:
    time.sleep(3600)
