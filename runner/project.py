"""Where a project's specs, registry, results and own parts lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """A folder that holds `specs/profiles`."""

    folder: Path

    @classmethod
    def of(cls, path: Path) -> Project:
        """Return the nearest project above a file; the file's own folder where there is none."""
        own = Path(os.path.realpath(path)).parent
        return next((project for folder in (own, *own.parents) if (project := cls(folder)).exists()), cls(own))

    @classmethod
    def here(cls) -> Project:
        """Return the project of the working folder."""
        return cls.of(Path("spec.toml"))

    def exists(self) -> bool:
        """Tell whether the folder is a project."""
        return self.profiles.is_dir()

    @property
    def specs(self) -> Path:
        """Folder of the specs."""
        return self.folder / "specs"

    @property
    def profiles(self) -> Path:
        """Folder of the profiles."""
        return self.specs / "profiles"

    @property
    def settings(self) -> Path:
        """File of the settings of all commands; it may be missing."""
        return self.folder / "mtrun.toml"

    @property
    def registry(self) -> Path:
        """Folder of the finished runs."""
        return self.folder / "registry"

    @property
    def results(self) -> Path:
        """Folder of the results, one folder a profile."""
        return self.folder / "results"

    @property
    def parts(self) -> Path:
        """Folder of the project's own parts, one folder a family."""
        return self.folder / "parts"
