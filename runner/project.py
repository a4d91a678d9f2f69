"""Where a project's specs, registry and results lie."""

from __future__ import annotations

import os
from pathlib import Path


def project_here() -> Path:
    """Return the project of the working folder: the nearest upwards that holds `specs/profiles`, else this one."""
    here = Path.cwd()
    return next((one for one in (here, *here.parents) if (one / "specs" / "profiles").is_dir()), here)


def project_of(path: Path) -> Path:
    """Return the project's folder: the nearest above a spec that holds `specs/profiles`, else the spec's own."""
    folder = Path(os.path.realpath(path)).parent
    return next((f for f in (folder, *folder.parents) if (f / "specs" / "profiles").is_dir()), folder)
