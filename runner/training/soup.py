"""Soups: leaves whose weights are a mean of other leaves' (Wortsman et al. 2022, arXiv:2203.05482)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..errors import RegistryError
from ..part import Known
from ..registry.registry import Registry
from ..specs.spec import SoupModel
from ..tasks.data import Data
from ..tasks.folds import Refit, refits
from ..tasks.metrics import overall, score_split
from ..tasks.predictions import Predictions
from .network import Network
from .stored_model import fitting_weights, read_run
from .tokens import Tokens
from .trainer import Trainer, TrainerCallback

Members = frozenset[str]
"""The runs whose weights are averaged, by id."""


class SoupTrainer(Trainer):
    """Makes a leaf of others without a step of training: chooses among them, by dev where asked to, and averages.

    What the recipe would have chosen without each fold of dev is chosen too, so that its score can be cross-fitted.
    """

    verb = "averaging"

    def __init__(self, model: SoupModel, network: Network, data: Data, tokens: Tokens, registry: Registry) -> None:
        super().__init__(model, network, data, tokens)
        self.registry, self.soup = registry, model.soup
        self.members = [cast(Known, member).id for member in model.soup.members]
        self.refits: list[int] = []
        """Of a greedy soup: which of `epochs` it would be by each refit."""
        self._memo: dict[Members, Predictions] = {}
        self._watch = TrainerCallback()

    @property
    def steps(self) -> int:
        """How many members there are."""
        return len(self.members)

    def outcome(self) -> dict[str, Any]:
        """Return what became of the recipe, and for each refit of dev which of `epochs` it would have come to."""
        of = f"{len(self.state.history[self.state.best]['members'])} of {len(self.members)}"
        return {"what": f"{self.soup.recipe} soup of {of}", "refits": self.refits} if self.refits else {}

    def run(self, watch: TrainerCallback, checkpoint: Path) -> Predictions:
        """Make the soup and return its Predictions. Raise Stopped where `watch` does; nothing of it is kept."""
        self._watch, is_greedy = watch, self.soup.recipe == "greedy"
        tried = greedy(self.members, self._reached) if is_greedy else [(frozenset(self.members), True)]
        for members, kept in tried:
            self._note(members, kept)
        chosen = _last(tried)
        parts = refits(self.data, self.data.sha256()) if is_greedy else ()
        others = [_last(greedy(self.members, partial(self._reached, refit=part))) for part in parts]
        distinct = list(dict.fromkeys([chosen, *others]))
        self.epochs = [self.said(members) for members in distinct]
        self.refits = [distinct.index(members) for members in others]
        self.network.load_state_dict(self.mean(chosen))
        return self.all(self.network, watch.tick)

    def mean(self, members: Members) -> dict[str, Tensor]:
        """Return the mean of some runs' weights, summed in float64 by the order of their ids."""
        total: dict[str, Tensor] = {}
        for id in sorted(members):
            for name, tensor in self._weights(id).items():
                total[name] = total[name] + tensor if name in total else tensor.double()
        mine = self.network.state_dict()
        return {name: (tensor / len(members)).to(mine[name]) for name, tensor in total.items()}

    def said(self, members: Members) -> Predictions:
        """Return what the mean of some runs says of dev: of one run, what is stored."""
        if members not in self._memo:
            if len(members) == 1:
                self._memo[members] = self._stored(*members)
            else:
                self.network.load_state_dict(self.mean(members))
                self._memo[members] = self.dev(self.network, self._watch.tick)
        return self._memo[members]

    def _stored(self, id: str) -> Predictions:
        run = self.registry.find(id)
        if run is None:
            raise RegistryError(f"run {id} is gone; build again")
        outputs = run.predictions().outputs.get("dev", {})
        return Predictions({"dev": {task: output for task, output in outputs.items() if task in self.model.heads}})

    def _weights(self, id: str) -> dict[str, Tensor]:
        """Return a run's weights. Raise TrainingError where they are not of the network's shape."""
        return fitting_weights(read_run(self.registry, id), self.network, ("",),
                               "a soup is made of runs of one encoder with the same heads")

    def _note(self, members: Members, kept: bool) -> None:
        """Note a mean that was tried, in the order of trying."""
        dev = score_split(self.said(members), self.data, "dev")
        self.state.step += 1
        self.state.history.append({"step": self.state.step, "losses": {}, "dev": dev, "members": sorted(members)})
        self.state.best = len(self.state.history) - 1 if kept else self.state.best
        self._watch.report(self.state)

    def _reached(self, members: Members, refit: Refit | None = None) -> float:
        """Return the dev overall of a mean over the tasks with a head; by a refit on what is left of dev."""
        said, data = self.said(members), self.data
        if refit:
            said, data = refit.restricted(said, data), refit.data
        tasks = {task: meaning for task, meaning in data.tasks.items() if task in self.model.heads}
        return overall(score_split(said, data, "dev"), tasks) or 0.0


def greedy(members: Iterable[str], reached: Callable[[Members], float]) -> list[tuple[Members, bool]]:
    """Return the sets of members that are tried, in order, and which are kept: the last kept one is the soup.

    Recipe 1 of Wortsman et al.: from the best member to the worst, equal ones by id, each is added with which the
    mean reaches at least as much as without.
    """
    first, *others = sorted(members, key=lambda id: (-reached(frozenset([id])), id))
    soup = frozenset([first])
    tried = [(soup, True)]
    for id in others:
        more = soup | {id}
        tried.append((more, reached(more) >= reached(soup)))
        soup = more if tried[-1][1] else soup
    return tried


def _last(tried: list[tuple[Members, bool]]) -> Members:
    return [members for members, kept in tried if kept][-1]
