"""A worker beside the web process: says something now and then."""

import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(f"worker {os.environ.get('DYNO', 'nowhere')} works", flush=True)
while True:
    time.sleep(60)
