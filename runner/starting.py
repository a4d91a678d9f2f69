"""Leaves that begin with the weights of another."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load

from .errors import Place, Problem, RegistryError, TrainingError
from .lineage import shape
from .network import Network
from .orders import model_of
from .registry import MANIFEST, WEIGHTS, Registry
from .spec import Model


def begin(network: Network, id: str, project: Path) -> None:
    """Give a network the weights of a finished run: those of the encoder, and of each head that is the same there.

    Raise RegistryError where the run or its weights are gone, TrainingError where they are of another shape.
    """
    run = Registry(project / "registry").find(id)
    if run is None or WEIGHTS not in run.manifest["files"]:
        raise RegistryError(f"run {id} or its weights are gone; build again")
    other = model_of(run.manifest["spec"], Place(str(run.folder / MANIFEST)), project)
    same = [task for task in network.heads if _head(task, other) == _head(task, network.model)]
    rooms = ("encoder.", *(f"heads.{task}." for task in same))
    weights = {name: tensor for name, tensor in load(run.read(WEIGHTS)).items() if name.startswith(rooms)}
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items() if name.startswith(rooms)}
    if wrong := sorted(name for name in {*wanted, *weights} if name not in weights
                       or weights[name].shape != wanted.get(name)):
        raise TrainingError(Problem(f"the weights of `{run.manifest['name']}` ({id}) are of another shape",
                                    notes=(f"such as `{wrong[0]}`",),
                                    hint="a model begins with weights of an encoder like its own"))
    network.load_state_dict(weights, strict=False)


def _head(task: str, model: Model) -> dict[str, object]:
    """Return what decides the weights of a head and their meaning; nothing where there is no such head."""
    fields = {key: value for key, value in shape(model).items() if key.startswith(f"heads.{task}.")}
    return fields | {"task": model.suite.meanings()[task]} if fields else {}
