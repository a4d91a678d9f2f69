"""Deliveries: finished runs that come as bytes from a machine with a file system of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from .errors import RegistryError
from .orders import Order
from .predictions import Predictions
from .registry import FORMAT, MANIFEST, PREDICTIONS, Registry, Run, unsealed


def receive(registry: Registry, order: Order, files: Mapping[str, bytes]) -> Run:
    """Commit a run that was made elsewhere, manifest and all, as if it were made here.

    Raise RegistryError where it is not what was written there, or not what was ordered; StorageError.
    """
    try:
        manifest = unsealed(files[MANIFEST])
    except (KeyError, ValueError) as error:
        raise RegistryError(f"run {order.id} came without a sound manifest: {error}") from None
    if (manifest["id"], manifest["format"]) != (order.id, FORMAT):
        raise RegistryError(f"run {manifest['id']} came in the place of {order.id}, or in another format")
    content = {name: data for name, data in files.items() if name != MANIFEST}
    told = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
    if told != {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in content.items()}:
        raise RegistryError(f"run {order.id} was damaged on its way here")
    Predictions.from_bytes(content[PREDICTIONS], f"{PREDICTIONS} of run {order.id}")
    values = {key: value for key, value in manifest.items() if key not in ("id", "format", "files", "sha256")}
    return registry.commit(order.id, content, values, order.replaces)
