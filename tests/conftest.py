"""Settings of all tests, and what they share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and start workers of their own

from hypothesis import settings

settings.register_profile("shared", deadline=None)  # a busy machine is no fault of an example
settings.load_profile("shared")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with finished runs, to be read only; see `systems.py`."""
    import systems  # here, since it imports torch

    return systems.trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained checkpoint, to be read only."""
    from pretrained import checkpoint  # here, since it imports torch

    return checkpoint(tmp_path_factory.mktemp("original"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes, where the system permits to make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("this system does not permit a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
