"""Data sets of the Hugging Face hub by the names that pandas and `datasets` give their files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import DataError, Problem
from ...tasks.row_files import INSTALL

HUB = "hf://"
"""What the name of a file on the hub begins with."""

FORM = "hf://datasets/OWNER/NAME/FILE or hf://datasets/OWNER/NAME@REVISION/FILE"

_PATTERN = re.compile(r"hf://datasets/(?P<repository>[\w.-]+/[\w.-]+)"
                      r"(?:@(?P<revision>~parquet|refs/convert/[\w.-]+|refs/pr/\d+|[^/]+))?/(?P<path>[^/].*)")

_PARQUET = "refs/convert/parquet"
"""Branch with the files that the hub made of a data set; `~parquet` for short."""


@dataclass(frozen=True)
class HubName:
    """Name of a file, or a pattern, in a repository of data on the hub."""

    repository: str
    revision: str | None
    """Commit, branch or tag; None for the main branch."""
    path: str

    @classmethod
    def parsed(cls, name: str) -> HubName | None:
        """Parse a name; return None for one of another form."""
        found = _PATTERN.fullmatch(name)
        if not found:
            return None
        revision = found["revision"]
        return cls(found["repository"], _PARQUET if revision == "~parquet" else revision, found["path"])

    @property
    def repository_name(self) -> str:
        """Name of the repository at the revision, as names of its files begin."""
        return f"{HUB}datasets/{self.repository}" + (f"@{self.revision}" if self.revision else "")

    def folder(self) -> Path:
        """Return the folder with the files in the hub's cache; download those that it lacks. Raise DataError."""
        if (folder := self._cached()) and (folder / self.path).is_file():
            return folder
        return _downloaded(self)

    def missing(self) -> DataError:
        """Return the error for a file that the repository lacks."""
        return DataError(Problem(f"{self.repository_name} has no file {self.path}",
                                 hint=f"its files: {self.page}/tree/{self.revision or 'main'}"))

    @property
    def page(self) -> str:
        """Address of the repository."""
        return f"huggingface.co/datasets/{self.repository}"

    def _cached(self) -> Path | None:
        """Return the folder of the revision in the hub's cache, if that is known without asking the hub."""
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        folder = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
        folder = folder.expanduser() / f"datasets--{self.repository.replace('/', '--')}"
        main = folder / "refs" / (self.revision or "main")
        commit = main.read_text().strip() if main.is_file() else self.revision
        return folder / "snapshots" / commit if commit else None


@cache
def _downloaded(name: HubName) -> Path:
    """Download files into the hub's cache, once a process; return the folder. Raise DataError."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name.repository, repo_type="dataset", revision=name.revision,
                                      allow_patterns=[name.path]))
    except ImportError:
        problem = Problem(f"{name.repository_name} is read by the package huggingface_hub, which is not installed",
                          hint=INSTALL)
    except Exception as error:  # the hub's client raises many unrelated types for "no network"
        problem = _refused(error, name)
    raise DataError(problem)


def _refused(error: Exception, name: HubName) -> Problem:
    """Return the problem of files that the hub did not give."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return Problem(f"{name.repository_name} is open only to those who asked for it",
                       hint=f"ask on {name.page}, then log in: hf auth login")
    if "RepositoryNotFoundError" in kinds:
        return Problem(f"the hub has no data set {name.repository}, or it is private",
                       hint="to read a private one, log in: hf auth login")
    if "RevisionNotFoundError" in kinds:
        return Problem(f"the data set {name.repository} of the hub has no revision {name.revision}",
                       hint=f"its revisions: {name.page}/commits/main")
    return Problem(f"{name.repository_name}/{name.path} is not on this machine, and the hub gave none: "
                   f"{type(error).__name__}", notes=tuple(str(error).splitlines()[:1]),
                   hint=f"load it once where there is a network, or copy it from {name.page} and name the copy")
