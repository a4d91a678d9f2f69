"""Model soups: leaves whose weights are the mean of those of other leaves (Wortsman et al. 2022, arXiv:2203.05482)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..errors import Place, RegistryError
from ..part import Known
from ..project import Project
from ..registry.registry import MANIFEST, Registry
from ..specs.spec import SoupModel
from ..specs.stored_run import model_of
from ..tasks.data import Data
from ..tasks.folds import Refit, refits
from ..tasks.metrics import overall, score_split
from ..tasks.predictions import Predictions
from .network import Network
from .stored_model import check_files, fitting_weights, read_run
from .tokens import Tokens
from .trainer import Trainer, TrainerCallback

Members = frozenset[str]
"""Ids of the runs whose weights are averaged."""


class SoupTrainer(Trainer):
    """Averages the weights of runs without training: of all members, or of a greedy choice on dev.

    The greedy choice is also made without each fold of dev, so that the score can be cross-fitted.
    """

    verb = "averaging"

    def __init__(self, model: SoupModel, network: Network, data: Data, tokens: Tokens, project: Path) -> None:
        super().__init__(model, network, data, tokens)
        self.project, self.registry, self.soup = project, Registry(Project(project).registry), model.soup
        self.base = {name: network.state_dict()[name].detach().clone()
                     for name in (f"encoder.{name}" for name in network.base)}
        """The encoder's own weights, which runs with an adapter may have in its files only."""
        self.members = [cast(Known, member).id for member in model.soup.members]
        self.refits: list[int] = []
        """Index into `epochs` of the greedy choice of each refit; empty for a uniform soup."""
        self._memo: dict[Members, Predictions] = {}
        self._watch = TrainerCallback()

    @property
    def steps(self) -> int:
        """Number of members."""
        return len(self.members)

    def outcome(self) -> dict[str, Any]:
        """Return the entries of the manifest for a greedy soup: its description and the choice of each refit."""
        of = f"{len(self.state.history[self.state.best]['members'])} of {len(self.members)}"
        return {"what": f"{self.soup.recipe} soup of {of}", "refits": self.refits} if self.refits else {}

    def run(self, watch: TrainerCallback, checkpoint: Path) -> Predictions:
        """Make the soup and return its Predictions. Raise Stopped if `watch` does; no checkpoint is written."""
        self._watch, is_greedy = watch, self.soup.recipe == "greedy"
        tried = greedy(self.members, self._score) if is_greedy else [(frozenset(self.members), True)]
        for members, kept in tried:
            self._note(members, kept)
        chosen = _last(tried)
        parts = refits(self.data, self.data.sha256()) if is_greedy else ()
        others = [_last(greedy(self.members, partial(self._score, refit=part))) for part in parts]
        distinct = list(dict.fromkeys([chosen, *others]))
        self.epochs = [self.dev_predictions(members) for members in distinct]
        self.refits = [distinct.index(members) for members in others]
        self.network.load_trained(self.mean(chosen))
        return self.all(self.network, watch.tick)

    def mean(self, members: Members) -> dict[str, Tensor]:
        """Return the mean of the weights of some runs, summed in float64 in the order of their ids."""
        total: dict[str, Tensor] = {}
        for id in sorted(members):
            for name, tensor in self._weights(id).items():
                total[name] = total[name] + tensor if name in total else tensor.double()
        own = self.network.state_dict()
        return {name: (tensor / len(members)).to(own[name]) for name, tensor in total.items()}

    def dev_predictions(self, members: Members) -> Predictions:
        """Return the dev Predictions of the mean of some runs; those of a single run are the stored ones."""
        if members not in self._memo:
            if len(members) == 1:
                self._memo[members] = self._stored(*members)
            else:
                self.network.load_trained(self.mean(members))
                self._memo[members] = self.dev(self.network, self._watch.tick)
        return self._memo[members]

    def _stored(self, id: str) -> Predictions:
        """Return the stored dev Predictions of a run for the tasks with a head."""
        run = self.registry.find(id)
        if run is None:
            raise RegistryError(f"run {id} is gone; build again")
        outputs = run.predictions().outputs.get("dev", {})
        return Predictions({"dev": {task: output for task, output in outputs.items() if task in self.model.heads}})

    def _weights(self, id: str) -> dict[str, Tensor]:
        """Return the weights of a run. Raise TrainingError if their shapes differ from those of the network."""
        run = read_run(self.registry, id)
        model = model_of(run.manifest["spec"], Place(str(run.folder / MANIFEST)), self.project)
        check_files(run, model, self.project)
        in_files = {} if model.stores_encoder else self.base
        wanted = {name: tensor for name, tensor in self.network.weights().items() if name not in in_files}
        hint = "a soup is made of runs of one encoder with the same heads"
        return in_files | fitting_weights(run, wanted, ("",), hint)

    def _note(self, members: Members, kept: bool) -> None:
        """Append a tried set of members to the history."""
        dev = score_split(self.dev_predictions(members), self.data, "dev")
        self.state.step += 1
        self.state.history.append({"step": self.state.step, "losses": {}, "dev": dev, "members": sorted(members)})
        self.state.best = len(self.state.history) - 1 if kept else self.state.best
        self._watch.report(self.state)

    def _score(self, members: Members, refit: Refit | None = None) -> float:
        """Return the dev overall of a mean over the tasks with a head; for a refit, on the other folds of dev."""
        predictions, data = self.dev_predictions(members), self.data
        if refit:
            predictions, data = refit.restricted(predictions, data), refit.data
        tasks = {task: meaning for task, meaning in data.tasks.items() if task in self.model.heads}
        return overall(score_split(predictions, data, "dev"), tasks) or 0.0


def greedy(members: Iterable[str], score: Callable[[Members], float]) -> list[tuple[Members, bool]]:
    """Return the sets of members tried, in order, and whether each was kept; the last kept one is the soup.

    Recipe 1 of Wortsman et al.: from the best member to the worst, with ties by id, add each member that does not lower
    the score of the mean.
    """
    first, *others = sorted(members, key=lambda id: (-score(frozenset([id])), id))
    soup = frozenset([first])
    tried = [(soup, True)]
    for id in others:
        extended = soup | {id}
        tried.append((extended, score(extended) >= score(soup)))
        soup = extended if tried[-1][1] else soup
    return tried


def _last(tried: list[tuple[Members, bool]]) -> Members:
    """Return the last kept set of members."""
    return [members for members, kept in tried if kept][-1]
