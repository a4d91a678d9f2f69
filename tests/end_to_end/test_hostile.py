"""Foreign weights that mean harm: only our own errors, no code is run, memory stays bounded."""

from __future__ import annotations

import json
import pickle
import random
import resource
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from runner.errors import MtrunError
from runner.parts.encoders.bert.architectures import ARCHITECTURES
from runner.parts.encoders.bert.pretrained import PICKLED, WEIGHTS, PretrainedWeights

SHAPES = {"word.weight": (30, 8), "norm.weight": (8,), "norm.bias": (8,), "blocks.0.query.weight": (8, 8)}
GOOD = {ARCHITECTURES["bert"].their_name(name): torch.linspace(0, 1, 240)[: torch.Size(shape).numel()].reshape(shape)
        for name, shape in SHAPES.items()}
HUGE = [0, -1, 1, 2**31, 2**62, 2**64 - 1, 2**70, 1e300, None, "8", [8], True]


def flipped(chance: random.Random, data: bytes) -> bytes:
    """Change some bytes, more often than not in the header."""
    bad = bytearray(data)
    for _ in range(chance.randrange(1, 12)):
        bad[chance.randrange(min(len(bad), chance.choice([8, 400, len(bad)])))] = chance.randrange(256)
    return bytes(bad)


def cut(chance: random.Random, data: bytes) -> bytes:
    """Cut it, or add to it."""
    if chance.random() < 0.7:
        return data[: chance.randrange(len(data))]
    return data + chance.randbytes(chance.randrange(99))


def lied(chance: random.Random, data: bytes) -> bytes:
    """Let the header say shapes, types and places that are not so."""
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:8 + size])
    entry = header[chance.choice(sorted(header))]
    key = chance.choice(["shape", "data_offsets", "dtype"])
    if key == "dtype":
        entry[key] = chance.choice(["F64", "I8", "F8_E5M2", "BF16", "BOOL", "nothing", 5, None])
    else:
        entry[key] = [chance.choice(HUGE) for _ in range(chance.randrange(4))]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size:]


def long(chance: random.Random, data: bytes) -> bytes:
    """Announce a header of any length."""
    return chance.choice([0, 1, 2**24, 2**31, 2**62, 2**64 - 1]).to_bytes(8, "little") + data[8:]


def deep(chance: random.Random, data: bytes) -> bytes:
    """Nest a header deeply."""
    text = b'{"a":' * chance.choice([10, 1000, 100_000])
    return len(text).to_bytes(8, "little") + text


class Harm:
    """An object whose unpickling runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def pickled(chance: random.Random, folder: Path) -> None:
    """Write a pickle that would run code, plainly or inside torch's archive, and change it here and there."""
    content: Any = chance.choice([Harm(folder / "harmed"), {**GOOD, "x": Harm(folder / "harmed")}, GOOD])
    path = folder / PICKLED
    if chance.random() < 0.5:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    if chance.random() < 0.5:
        path.write_bytes(flipped(chance, path.read_bytes()))


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.long)])
def test_hostile_weights_raise_our_errors_only(tmp_path: Path, count: int) -> None:
    """The long form, with as many manifests in test_registry.py, makes ten thousand."""
    good, chance, refused = save(GOOD), random.Random(count), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        for name in (WEIGHTS, PICKLED):
            (tmp_path / name).unlink(missing_ok=True)
        if number % 5:
            (tmp_path / WEIGHTS).write_bytes(chance.choice([flipped, cut, lied, long, deep])(chance, good))
        else:
            pickled(chance, tmp_path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = PretrainedWeights(tmp_path, {}).weights(SHAPES)
        except MtrunError as error:
            refused += 1
            assert error.render()
        else:
            assert {name: tuple(t.shape) for name, t in found.items()} == SHAPES
            assert all(t.isfinite().all() for t in found.values())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    print(f"\n{count:,} hostile weight files: {refused:,} refused, no other error, no code run, "
          f"{grown:.0f} MB more memory")
    assert not (tmp_path / "harmed").exists()
    assert refused > count / 2 and grown < 200


def test_a_bomb_in_an_archive_is_refused(tmp_path: Path) -> None:
    """A few kilobytes that would unpack to gigabytes."""
    with zipfile.ZipFile(tmp_path / PICKLED, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 26))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings(), pytest.raises(MtrunError):
        warnings.simplefilter("ignore")
        PretrainedWeights(tmp_path, {}).weights(SHAPES)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
