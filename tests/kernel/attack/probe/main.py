"""`main.py AS ROW...`: attacks from inside a dyno. `main.py neighbour`: the other dyno."""

import sys

import base
import descriptors  # noqa: F401  (the modules register their rows)
import dynos
import filters  # noqa: F401
import kernel  # noqa: F401
import mounts  # noqa: F401
import start  # noqa: F401
import users  # noqa: F401

if sys.argv[1] == "neighbour":
    dynos.neighbour()
base.main()
