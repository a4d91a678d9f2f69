"""`python -m runner.worker ATTEMPT [PARENT]`."""

import os
import sys
from pathlib import Path

from .worker import main

if __name__ == "__main__":
    exit_code = main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # taking torch down module by module is a fifth of what starting it takes
