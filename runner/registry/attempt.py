"""Attempts: the folder through which a build and the worker of one leaf exchange files.

    task.json                the training job
    checkpoint.safetensors   latest state of training, from which it can be resumed
    progress.json            step and epoch, host and peak memory
    job.json                 engine and job id of the worker, where the engine outlives the build
    token                    random text by which a worker on another machine checks that the folder is shared
    stop                     asks a worker on another machine to stop with a checkpoint
    error.json               exit code and problems of a failed worker
    log.txt                  output of the worker, appended at each start
"""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..files import json_bytes, make_folder, overwrite, parse_json, remove, reported, write_bytes, write_unsynced

TASK, JOB, TOKEN, STOP = "task.json", "job.json", "token", "stop"

ERROR_BYTES = 8192
"""Size of error.json, which is written in advance, so that an error can be reported on a full disk."""


@dataclass(frozen=True)
class Attempt:
    """Folder of one training in progress."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint from which training is resumed."""
        return self.folder / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        """Path of the log with the worker's output."""
        return self.folder / "log.txt"

    @property
    def lease(self) -> Path:
        """Path of the run's lease."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    def begin(self, task: bytes, replaces: str = "") -> bool:
        """Write task.json and remove files of an earlier worker; return whether there is a checkpoint.

        `replaces` is the sha256 in the manifest of a run that is trained again.
        A checkpoint of an attempt that was to replace another run, or none, is removed. Raise StorageError.
        """
        make_folder(self.folder)
        for path in self.folder.glob(".*"):
            remove(path)
        if _read(self.folder / TASK).get("replaces", "") != replaces:
            remove(self.checkpoint)
        for name in (JOB, STOP):
            remove(self.folder / name)
        write_bytes(self.folder / TASK, task)
        write_bytes(self.folder / "error.json", b" " * ERROR_BYTES)
        return self.checkpoint.exists()

    def write_token(self) -> str:
        """Write a new random token, which a worker on another machine compares; return it. Raise StorageError."""
        token = uuid.uuid4().hex
        write_bytes(self.folder / TOKEN, token.encode())
        return token

    def record_job(self, engine: str, job: str) -> None:
        """Write the executor type and the job id of the worker. Raise StorageError."""
        write_bytes(self.folder / JOB, json_bytes({"engine": engine, "job": job}))

    def job(self) -> tuple[str, str]:
        """Return executor type and job id of the worker; two empty strings where none are recorded."""
        values = _read(self.folder / JOB)
        return str(values.get("engine", "")), str(values.get("job", ""))

    def clear_job(self) -> None:
        """Remove the record of the worker's executor and job id."""
        with contextlib.suppress(StorageError):
            remove(self.folder / JOB)

    def ask_to_stop(self) -> None:
        """Ask a worker that receives no signals to stop with a checkpoint; no-op where the folder is missing."""
        with contextlib.suppress(OSError):
            (self.folder / STOP).touch()

    def is_asked_to_stop(self) -> bool:
        """Return whether the worker is asked to stop."""
        return (self.folder / STOP).exists()

    def name(self) -> str:
        """Return the name of the model; empty where task.json cannot be read."""
        return str(_read(self.folder / TASK).get("name", ""))

    def check(self) -> None:
        """Raise StorageError where task.json exists but cannot be read."""
        with reported("read", self.folder / TASK), contextlib.suppress(FileNotFoundError):
            (self.folder / TASK).read_bytes()

    def model(self) -> dict[str, Any]:
        """Return the model's spec; empty where task.json cannot be read."""
        model = _read(self.folder / TASK).get("model")
        return model if isinstance(model, dict) else {}

    def report(self, progress: dict[str, Any]) -> None:
        """Write progress.json, which the build reads."""
        write_unsynced(self.folder / "progress.json", json.dumps(progress).encode())

    def progress(self) -> dict[str, Any]:
        """Return the content of progress.json; empty where it cannot be read."""
        return _read(self.folder / "progress.json")

    def fail(self, code: int, problems: list[str]) -> None:
        """Write exit code and problems to error.json, which the build reads; ignore a failed write."""
        shortened = [problem[: ERROR_BYTES // 2] for problem in problems]
        while len(data := json_bytes({"exit_code": code, "problems": shortened})) > ERROR_BYTES and shortened:
            shortened.pop()
        overwrite(self.folder / "error.json", data.ljust(ERROR_BYTES))

    def problems(self) -> list[str]:
        """Return the problems in error.json; empty where there are none."""
        return list(_read(self.folder / "error.json").get("problems", []))


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        values = parse_json(path.read_bytes())
        return values if isinstance(values, dict) else {}
    return {}
