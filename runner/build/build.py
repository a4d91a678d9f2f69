"""Build a plan bottom-up: train missing leaves, combine, score, write results; yield events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import MtrunError, RegistryError, StorageError
from ..files import write_bytes
from ..parts.discovery import error_in_own_part
from ..parts.ensembles import Ensemble, TreePredictions
from ..plan.forecast import forecast, longest_first
from ..plan.plan import Plan, PlannedNode
from ..plan.predict import below, trees
from ..registry.registry import Run
from ..results.crossfit import CrossFit
from ..results.replan import replanned
from ..results.result import Column, Result, ResultNode
from ..results.result_cache import ResultCache
from ..results.result_folder import read_files, run_digest
from ..specs.spec import Filed, Leaf, Tree
from ..tasks.metrics import Scores, score
from ..tasks.predictions import Predictions
from .events import Event
from .publish import complete, predictions_cache
from .scheduler import Scheduler


@dataclass
class Build:
    """One build of a plan; `results` is the folder of published results."""

    plan: Plan
    scheduler: Scheduler
    results: Path
    fail_fast: bool = False
    failed: set[str] = field(default_factory=set)
    written: list[Path] = field(default_factory=list)
    """Files of results written."""
    _predictions: dict[str, Predictions] = field(default_factory=dict)
    _trees: dict[str, TreePredictions] = field(default_factory=dict)
    """Trees by the hash of the suite."""
    _crossfits: dict[str, CrossFit] = field(default_factory=dict)
    """Cross-fits by the hash of the suite."""
    _scored: dict[str, ResultNode] = field(default_factory=dict)
    _runs: dict[str, Run] = field(default_factory=dict)
    """Reused runs that passed the integrity check."""
    _known: dict[str, Result] = field(default_factory=dict)
    """Cached results by name, if those of all systems are cached."""

    def events(self) -> Iterator[Event]:
        """Run the build and yield events, the last of which is `done`. Raise Stopped on a signal; it can be resumed."""
        todo = self.plan.todo()
        yield Event("planned", values={"nodes": len(self.plan.nodes), "train": len(todo)})
        nodes = [node for node in self.plan.nodes.values() if not node.spare]
        for node in nodes:
            if node.action == "reuse":
                yield self._reuse(node, todo)
        counter: Counter[str] = Counter()
        for event in self._train(todo):
            counter[event.event] += 1
            yield event
        counts = {"nodes": len(self.plan.nodes), "trained": counter["trained"]}
        if counter["detached"]:
            yield Event("done", values=counts | {"failed": len(self.failed), "detached": counter["detached"]})
            return
        self._recall(nodes)
        for node in nodes:
            self.scheduler.check()
            yield from self._score(node)
        for name, root in self.plan.roots.items():
            if root not in self.failed:
                yield from self._publish(name, self.plan.nodes[root])
        yield from self._rescore()
        yield from self._complete()
        yield Event("done", values=counts | {"failed": len(self.failed)})

    def _reuse(self, node: PlannedNode, todo: list[PlannedNode]) -> Event:
        """Check a finished run or predictions file for reuse; a damaged or missing run is added to `todo`.

        An unreadable run fails instead: it may be intact, so it must not be replaced.
        """
        if isinstance(node.spec, Filed):
            self._predictions[node.id] = self.plan.filed[node.id]
            return Event("reused", node.name, node.id)
        try:
            run = self.plan.registry.find(node.id)
            if run:
                run.check()
                self._runs[node.id] = run
                return Event("reused", node.name, node.id)
            problems = [f"error: run {node.id} is gone since the build was planned"]
        except RegistryError as error:
            problems = [problem.render() for problem in error.problems]
        except MtrunError as error:
            return self._failure(node, [problem.render() for problem in error.problems])
        if isinstance(node.spec, Leaf):
            todo.append(node)
            return Event("damaged", node.name, node.id, {"problems": problems})
        return self._failure(node, problems)

    def _train(self, todo: list[PlannedNode]) -> Iterator[Event]:
        """Train leaves in the order of their critical paths; leaves that depend on a failed one are not started."""
        ahead = forecast(self.plan, 1)
        self.scheduler.megabytes = {id: leaf.megabytes for id, leaf in ahead.leaves.items() if leaf.megabytes}
        self.scheduler.failed |= self.failed
        leaves = [] if self.fail_fast and self.failed else longest_first(self.plan, todo, ahead)
        for event in self.scheduler.train(leaves, self.plan.awaited(leaves)):
            if event.event == "failed" and self.fail_fast:
                self.scheduler.give_up()
            yield event
        self.failed |= self.scheduler.failed

    def _failure(self, node: PlannedNode, problems: list[str]) -> Event:
        """Mark a node as failed and return the event."""
        self.failed.add(node.id)
        return Event("failed", node.name, node.id, {"problems": problems})

    def _recall(self, nodes: Sequence[PlannedNode]) -> None:
        """Use the results of an earlier build if all systems are cached and nothing else has to be computed.

        Other builds keep those predictions meanwhile, since this one has reserved their ids.
        """
        cached = predictions_cache(self.plan)
        if not all(node.id in self._runs or not node.name or cached.has(node.id) for node in nodes):
            return
        cache = ResultCache(self.plan, self._runs)
        results = {name: result for name in self.plan.roots if (result := cache.find(name))}
        scored = {node.id: node for result in results.values() for node in result.tree.nodes()}
        if len(results) == len(self.plan.roots) and all(node.id in scored for node in nodes):
            self._known, self._scored = results, scored

    def _score(self, node: PlannedNode) -> Iterator[Event]:
        """Compute Predictions and scores of a node from its run, its file or its members."""
        if node.id in self.failed:
            return
        if node.id in self._scored:
            yield Event("scored", node.name, node.id, {"scores": self._scored[node.id].scores})
            return
        sources = () if node.id in {**self._predictions, **self._runs} else (*node.members, *node.needs)
        if failed := [m for m in sources if m in self.failed]:
            self.failed.add(node.id)
            yield Event("blocked", node.name, node.id, {"by": [self.plan.nodes[m].name or m for m in failed]})
            return
        try:
            self._predictions[node.id] = self._predict(node)
            self._scored[node.id] = self._result(node)
        except Exception as error:
            known = error if isinstance(error, MtrunError) else error_in_own_part(error)
            if not known:
                raise
            yield self._failure(node, [problem.render() for problem in known.problems])
            return
        yield Event("scored", node.name, node.id, {"scores": self._scored[node.id].scores})

    def _predict(self, node: PlannedNode) -> Predictions:
        """Return the Predictions of a node; those of the members of an ensemble must be known."""
        def leaf(id: str) -> Predictions:
            if id in self._predictions:
                return self._predictions[id]
            return self._run(id).predictions().with_suite_ids(data)

        data = self.plan.data[node.suite]
        if node.suite not in self._trees:
            self._trees[node.suite] = TreePredictions(data, trees(self.plan.nodes.values()), leaf)
        return self._trees[node.suite].of(node.id)

    def _run(self, id: str) -> Run:
        """Return a finished run. Raise MtrunError if it is missing: runs of other results may be removed meanwhile."""
        run = self.plan.registry.find(id)
        if run is None:
            raise MtrunError(f"run {id} ({self.plan.nodes[id].name}) was not trained")
        return run

    def _result(self, node: PlannedNode) -> ResultNode:
        """Return the ResultNode of a node; those of its members must be known."""
        data, spec, predictions = self.plan.data[node.suite], node.spec, self._predictions[node.id]
        scores = score(predictions, data)
        refits = self._crossfits.setdefault(node.suite, CrossFit(data, node.suite, self.plan.registry.cache / "honest"))
        if isinstance(spec, Tree):
            refits.add_tree(node.id, predictions, spec.ensemble, node.members)
            return self._result_of_tree(node, spec.ensemble, scores)
        if isinstance(spec, Filed):
            refits.add_leaf(node.id, predictions, None, chose=False)
            return ResultNode(name=node.name, id=node.id, kind="leaf", what=node.what, digest=node.id, scores=scores)
        run = self._runs[node.id] = self._run(node.id)
        chose = run.manifest["spec"]["train"]["select"] == "best"
        refits.add_leaf(node.id, predictions, run, chose)
        return ResultNode(
            name=node.name, id=node.id, kind="leaf", what=run.manifest["what"], digest=run.digest, scores=scores,
            honest=refits.honest(node.id), apparent=chose, parameters=run.manifest["parameters"],
        )

    def _result_of_tree(self, node: PlannedNode, ensemble: Ensemble, scores: Scores) -> ResultNode:
        """Return the ResultNode of an ensemble."""
        chosen = ensemble.chosen(self._trees[node.suite].choices[node.id], node.members)
        return ResultNode(
            name=node.name, id=node.id, kind="ensemble", what=ensemble.summary(), scores=scores,
            honest=self._crossfits[node.suite].honest(node.id), apparent=ensemble.chooses,
            chosen=None if chosen is None else tuple(chosen),
            roles=ensemble.roles() if any(ensemble.roles()) else (),
            members=tuple(self._scored[m] for m in node.members),
        )

    def _publish(self, name: str, node: PlannedNode) -> Iterator[Event]:
        """Write the scored tree of one spec."""
        result = self._known.get(name) or self._new_result(name, node)
        path = self.results / self.plan.profile / f"{name}.json"
        try:
            write_bytes(path, result.to_json())
        except StorageError as error:
            yield self._failure(node, [problem.render() for problem in error.problems])
        else:
            self.written.append(path)

    def _rescore(self) -> Iterator[Event]:
        """Score other results of the profile again if they contain outdated predictions or scores of a node."""
        others = {path: result for path, result in read_files(self.results / self.plan.profile)[0].items()
                  if path not in self.written and self._is_outdated(result)}
        if not others:
            return
        plan = replanned(self.plan.project, self.plan.profile, list(others.values()))
        again = Build(plan, self.scheduler, self.results)
        for path, result in others.items():
            root = plan.roots.get(result.tree.name)
            if root == result.tree.id and again._is_scored_again(root, result.tree.name):
                yield Event("rescored", result.tree.name, root, {"file": str(path)})
        self.written += again.written
        self._predictions |= again._predictions

    def _is_outdated(self, result: Result) -> bool:
        """Return whether a node of a result is another replica, or has other scores, than in this build or registry."""
        def differs(node: ResultNode) -> bool:
            if new := self._scored.get(node.id):
                return (node.answer, node.scores, node.honest) != (new.answer, new.scores, new.honest)
            digest = None if node.members else run_digest(self.plan.registry, node.id)
            return digest is not None and digest != node.digest

        return any(map(differs, result.tree.nodes()))

    def _is_scored_again(self, root: str, name: str) -> bool:
        """Score a tree from finished leaves and write its result; return False if that is not possible."""
        for node in below(self.plan, root):
            self.scheduler.check()
            if node.id not in self._scored:
                if node.action == "reuse":
                    self._reuse(node, [])
                list(self._score(node))
        return root in self._scored and not list(self._publish(name, self.plan.nodes[root]))

    def _new_result(self, name: str, node: PlannedNode) -> Result:
        """Return the result of one spec, and cache it."""
        data = self.plan.data[node.suite]
        columns = tuple(Column(name=name, title=task.title, kind=task.kind, metrics=task.metrics, counts=task.counts)
                        for name, task in data.tasks.items())
        result = Result(profile=self.plan.profile, suite=self.plan.suites[node.suite], sha256=node.suite, tasks=columns,
                        spec=self.plan.specs.get(name, ""), settings=self.plan.settings,
                        tree=self._scored[node.id].model_copy(update={"name": name}))
        ResultCache(self.plan, self._runs).keep(name, result)
        return result

    def _complete(self) -> Iterator[Event]:
        """Update the intervals and costs published with the results."""
        if not self.written:
            return
        try:
            complete(self.plan, self._predictions, self.results / self.plan.profile)
        except MtrunError as error:
            self.failed.add("")
            yield Event("failed", "intervals and costs", values={"problems": [p.render() for p in error.problems]})
