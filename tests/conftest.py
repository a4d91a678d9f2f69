"""Settings of all tests."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and start workers of their own

from hypothesis import settings

settings.register_profile("shared", deadline=None)  # a busy machine is no fault of an example
settings.load_profile("shared")
