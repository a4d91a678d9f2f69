"""Transfer of finished runs as bytes between machines without a shared file system."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ..errors import RegistryError
from ..tasks.predictions import Predictions
from .manifest import parse_manifest
from .registry import FORMAT, MANIFEST, PREDICTIONS, Registry, Run


def run_files(registry: Registry, id: str) -> dict[str, bytes]:
    """Return all files of a run by name, including the manifest; empty where there is no such run."""
    folder = registry.root / id
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def receive(registry: Registry, id: str, files: Mapping[str, bytes], replaces: str = "") -> Run:
    """Verify and commit a run that was trained on another machine; `replaces` is as for `Registry.commit`.

    Raise RegistryError where files are damaged or belong to another run, StorageError where writing fails.
    """
    try:
        manifest = parse_manifest(files[MANIFEST])
    except (KeyError, ValueError) as error:
        raise RegistryError(f"run {id} came without a sound manifest: {error}") from None
    if (manifest["id"], manifest["format"]) != (id, FORMAT):
        raise RegistryError(f"run {manifest['id']} came in the place of {id}, or in another format")
    content = {name: data for name, data in files.items() if name != MANIFEST}
    recorded = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
    if recorded != {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in content.items()}:
        raise RegistryError(f"run {id} was damaged on its way here")
    Predictions.from_bytes(content[PREDICTIONS], f"{PREDICTIONS} of run {id}")
    values = {key: value for key, value in manifest.items() if key not in ("id", "format", "files", "sha256")}
    return registry.commit(id, content, values, replaces)
