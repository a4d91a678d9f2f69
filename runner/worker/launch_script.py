"""Shell script that starts a worker on another machine, which must share the registry's folder."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from ..specs.spec import Resources

UNSHARED = 66
"""Exit code of the script on a machine where the attempt's token is not found."""

TRIES = 30
"""How often, twice a second, the script looks for the token, which a shared file system may show late."""

_LINES = """\
tries=0
until [ "$(cat "$attempt/token" 2>/dev/null)" = {token} ]; do
  tries=$((tries + 1))
  [ "$tries" -gt {tries} ] && exit {unshared}
  sleep 0.5
done
exec >>"$attempt/log.txt" 2>&1 </dev/null
cd {project}
{exports}
{setup}
exec env OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} {python} -P -m runner.worker "$attempt" {parent}
"""


def lines(token: str, project: Path, resources: Resources, python: str = "", setup: tuple[str, ...] = (),
          parent: str = "") -> str:
    """Return shell lines that start the worker of the attempt whose folder is in the shell variable `attempt`.

    `python` is the interpreter on the other machine, by default the same path as here; `setup` are lines before it.
    The worker stops when the process `parent` ends. The environment variables `MTRUN_*` are passed on.
    """
    exports = [f"{name}={shlex.quote(value)}" for name, value in os.environ.items() if name.startswith("MTRUN_")]
    return _LINES.format(token=token, project=shlex.quote(str(project)), setup="\n".join(setup) or ":",
                         threads=resources.threads, python=shlex.quote(python or sys.executable), parent=parent,
                         exports=f"export {' '.join(exports)}" if exports else ":", tries=TRIES, unshared=UNSHARED)


def unshared_message(host: str, folder: Path) -> str:
    """Return the message for a script that ended with `UNSHARED`."""
    return f"{host or 'the machine'} does not see {folder}; the project must lie on a file system that all share"
