"""A worker that says that it works."""

import signal
import time

print("worker works", flush=True)
signal.signal(signal.SIGTERM, lambda *_: exit(0))
while True:
    time.sleep(3600)
