"""Checkpoints of a run in training: tensors and state in one safetensors file with a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import RegistryError
from ..files import reported, write_bytes


def write(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; `state` is plain JSON. Raise StorageError."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state)
    write_bytes(path, save(plain, {"state": text, "sha256": _digest(plain, text)}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the state of a checkpoint. Raise RegistryError if it is damaged, or StorageError."""
    try:
        with reported("read", path), safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(tensors, metadata["state"]) != metadata["sha256"]:
            raise ValueError("it is not what was written")
        state = json.loads(metadata["state"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RegistryError(f"the checkpoint {path} is damaged: {error}") from None
    return tensors, state


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    """Return the sha256 over the state and over names, dtypes, shapes and bytes of all tensors."""
    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors whose names begin with a prefix, and strip it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
