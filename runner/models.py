"""From the layers of a model's file to its leaves: profile, sweep, `--set`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .assembly import Assembly
from .consistency import misfits, misnamed_head, unsafe_tasks
from .differences import place_of
from .errors import Place, SpecError
from .heads import Head
from .machine import computes_bf16, emulated_bf16
from .overlays import united, without
from .references import HEADER, References, Users
from .spec import Leaf, Model
from .suites import Suite
from .sweeps import points, with_settings
from .toml import Table

FILED = (*HEADER, "extends", "sweep")
"""Keys of a model's file that are not the model's."""


@dataclass
class Models:
    """Makes the leaves of models under one profile and one table of settings."""

    references: References
    assembly: Assembly
    profile: str
    setting: Table
    say: Callable[..., None]
    count: Callable[[int, Place], None]
    """Is told how many leaves are about to be made, and where."""
    settled: dict[str, None] = field(default_factory=dict)
    """What was left open and became what on this machine, and why."""
    warnings: dict[str, None] = field(default_factory=dict)
    checked: bool = False
    """Whether the profile has been looked through."""

    def leaves(self, name: str, layers: Sequence[Table], users: Users) -> Iterator[Leaf]:
        """Yield a model, or each point of its sweep; `layers` are those of its file. Raise SpecError."""
        ground = self.references.profile(self.profile, users)
        self._check(self.references.stacked(ground, users), ground)
        own = [without(layer, FILED) for layer in layers]
        table = self.references.stacked([*ground, *own], users)
        sweeps = [layer["sweep"] for layer in layers if "sweep" in layer]
        made = points(name, united(*sweeps), FILED) if sweeps else [(name, Table(table.place))]
        self.count(len(made), table.place)
        for label, point in made:
            try:
                named = with_settings(label, self.setting)
                yield from self._leaf(named, table, [*own, point, self.setting], users)
            except SpecError as error:
                self.say(*error.problems)

    def _check(self, table: Table, ground: Sequence[Table]) -> None:
        """Say what is wrong with a profile by itself, also where no model lets it be seen."""
        if not self.checked:
            self.checked = True
            self._fitted(table, ground)
            Assembly(self.assembly.project, say=self.say, whole=False).part(Model, table, table.place, also=FILED)

    def _leaf(self, name: str, table: Table, layers: Sequence[Table], users: Users) -> Iterator[Leaf]:
        """Yield the leaf of one point, if it is right; of `layers` the last two are not in the table yet."""
        for layer in layers[-2:]:
            table = self.references.over(table, layer, users, headers=False)
        table, wrong = self._fitted(table, layers)
        model = self.assembly.part(Model, table, table.place, also=FILED)
        if model and not wrong:
            self.say(*misfits(model, table, self.assembly.project))
            yield Leaf(name, self._settled(model, table), table)

    def _settled(self, model: Model, table: Table) -> Model:
        """Return a model whose precision is that of the machine where the spec leaves it open; warn of an emulated one.

        The device is looked at where the plan is made: an executor's machines may be others.
        """
        if (asked := model.train.precision) == "fp32":
            return model
        is_native, why = computes_bf16(model.resources.device)
        if asked == "auto":
            precision: Literal["fp32", "bf16"] = "bf16" if is_native else "fp32"
            self.settled.setdefault(f"precision `auto` is {precision} here: {why}")
            return model.with_precision(precision)
        if not is_native:
            at = place_of(table, ("train", "precision"))
            self.warnings.setdefault(f"warning: {at}: bf16 is emulated here, {emulated_bf16()} ({why}); "
                                     "`precision = \"auto\"` takes fp32")
        return model

    def _fitted(self, table: Table, layers: Sequence[Table]) -> tuple[Table, bool]:
        """Return a model's table without heads that it cannot have, and whether that is wrong.

        A model has the heads that its `layers` name, which is wrong where the suite lacks their tasks. Of the profile's
        other heads it has those that are whole; the rest only say what such heads are like.
        """
        named = {task for layer in layers if isinstance(heads := layer.get("heads"), Table) for task in heads}
        heads, suite = table.get("heads"), table.get("suite")
        if not isinstance(suite, Table) or not isinstance(heads, Table):
            return table, False
        part = self.assembly.part(Suite, suite, suite.place, "suite", HEADER)  # type: ignore[type-abstract]
        if not part:
            return table, True
        self.say(*unsafe_tasks(part, suite))
        foreign = [task for task in heads if task not in part.meanings()]
        wrong = [task for task in foreign if task in named]
        for task in wrong:
            self.say(misnamed_head(task, table, part))
        spare = [task for task in heads if task not in named and not self._is_whole(heads[task], heads.place)]
        kept = without(heads, [*foreign, *spare])
        out = without(table, [] if kept or wrong else ["heads"])
        if "heads" in out:
            out["heads"] = kept or heads
        return out, bool(wrong)

    def _is_whole(self, head: Any, at: Place) -> bool:
        """Tell whether a profile's head can be built as it is."""
        return Assembly(self.assembly.project).part(Head, head, at, "heads") is not None  # type: ignore[type-abstract]
