"""Attempts: the folder through which a build and the worker of one leaf talk.

    task.json                what is to be trained
    checkpoint.safetensors   all that the rest of the run depends on, from time to time
    progress.json            how far the run is, on which machine, with how much memory
    job.json                 by what name an engine knows the worker, where it outlives the build
    token                    what a worker on another machine must find here, or the folder is not shared
    stop                     asks a worker on another machine to stop with a checkpoint
    error.json               why it failed, where it did
    log.txt                  what the worker says, over all its starts
"""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..files import json_bytes, make_folder, overwrite, post, remove, reported, write_bytes

TASK, JOB, TOKEN, STOP = "task.json", "job.json", "token", "stop"

ROOM = 8192
"""Bytes of error.json, which is made before it is needed, so that a full disk can still be told."""


@dataclass(frozen=True)
class Attempt:
    """Work in progress on one run."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """File from which training goes on."""
        return self.folder / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        """File of what the worker said."""
        return self.folder / "log.txt"

    @property
    def lease(self) -> Path:
        """File of the lease of whoever works on the run."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    def begin(self, task: bytes, replaces: str = "") -> bool:
        """Write task.json and remove what a dead worker left; return whether there is a checkpoint.

        `replaces` is the sha256 of the manifest of a run that is trained again.
        A checkpoint that was made to replace another run, or none, is not gone on from. Raise StorageError.
        """
        make_folder(self.folder)
        for path in self.folder.glob(".*"):
            remove(path)
        if _read(self.folder / TASK).get("replaces", "") != replaces:
            remove(self.checkpoint)
        for name in (JOB, STOP):
            remove(self.folder / name)
        write_bytes(self.folder / TASK, task)
        write_bytes(self.folder / "error.json", b" " * ROOM)
        return self.checkpoint.exists()

    def mark(self) -> str:
        """Write a token that a worker on another machine is to compare; return it. Raise StorageError."""
        token = uuid.uuid4().hex
        write_bytes(self.folder / TOKEN, token.encode())
        return token

    def entrust(self, engine: str, job: str) -> None:
        """Write down which engine knows the worker, and as what. Raise StorageError."""
        write_bytes(self.folder / JOB, json_bytes({"engine": engine, "job": job}))

    def job(self) -> tuple[str, str]:
        """Return the engine that was entrusted with the worker, and its job; two empty strings where none was."""
        values = _read(self.folder / JOB)
        return str(values.get("engine", "")), str(values.get("job", ""))

    def dismiss(self) -> None:
        """Note that no engine has the worker any more."""
        with contextlib.suppress(StorageError):
            remove(self.folder / JOB)

    def ask_to_stop(self) -> None:
        """Ask a worker that no signal reaches to stop with a checkpoint; nothing happens where there is no folder."""
        with contextlib.suppress(OSError):
            (self.folder / STOP).touch()

    def is_asked_to_stop(self) -> bool:
        """Tell whether the worker is asked to stop."""
        return (self.folder / STOP).exists()

    def name(self) -> str:
        """Return the name of what is trained; empty where that is not known."""
        return str(_read(self.folder / TASK).get("name", ""))

    def check(self) -> None:
        """Raise StorageError where there is a task that cannot be read, so that nothing is known of the attempt."""
        with reported("read", self.folder / TASK), contextlib.suppress(FileNotFoundError):
            (self.folder / TASK).read_bytes()

    def model(self) -> dict[str, Any]:
        """Return what is trained; empty where that is not known."""
        model = _read(self.folder / TASK).get("model")
        return model if isinstance(model, dict) else {}

    def report(self, progress: dict[str, Any]) -> None:
        """Tell the build how far the run is."""
        post(self.folder / "progress.json", json.dumps(progress).encode())

    def progress(self) -> dict[str, Any]:
        """Return how far the run is; empty where that is not known."""
        return _read(self.folder / "progress.json")

    def fail(self, code: int, problems: list[str]) -> None:
        """Tell the build why the run failed; where that cannot be written, the exit code and the log must do."""
        told = [problem[: ROOM // 2] for problem in problems]
        while len(data := json_bytes({"exit_code": code, "problems": told})) > ROOM and told:
            told.pop()
        overwrite(self.folder / "error.json", data.ljust(ROOM))

    def problems(self) -> list[str]:
        """Return why the run failed; empty where the worker could not say."""
        return list(_read(self.folder / "error.json").get("problems", []))


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        values = json.loads(path.read_bytes())
        return values if isinstance(values, dict) else {}
    return {}
