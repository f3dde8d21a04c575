"""`main.py AS ROW...`: attacks from inside a dyno."""

import base
import descriptors  # noqa: F401  (the modules register their rows)
import filters  # noqa: F401
import kernel  # noqa: F401
import mounts  # noqa: F401
import start  # noqa: F401
import users  # noqa: F401

base.main()
