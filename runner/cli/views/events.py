"""Show the events of a build as progress bars, plain lines or JSON Lines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ...build.events import Event
from ...errors import clean
from ...tasks.metrics import OVERALL
from .plan import duration

if TYPE_CHECKING:
    from rich.progress import TaskID

QUIET_SECONDS = 60.0
"""Minimal time between two progress lines of one leaf."""


class View(Protocol):
    """Something that shows events."""

    def show(self, event: Event) -> None:
        """Show one event."""


def line(event: Event) -> str:
    """Render an event as text; empty for events that are not shown."""
    v, name = event.values, event.name or event.id
    texts = {
        "planned": lambda: f"{v['nodes']} node{'s' * (v['nodes'] != 1)}, {v['train']} to train",
        "started": lambda: f"{name}: {_start(v)}",
        "trained": lambda: f"{name}: trained in {v['seconds']:.1f} s",
        "damaged": lambda: "\n".join([f"{name}: its run is damaged; training it again", *v["problems"]]),
        "elsewhere": lambda: f"{name}: another build is training it{' on ' * bool(v)}{v.get('host', '')}; waiting",
        "interrupted": lambda: f"{name}: stopped" + (f" at step {v['step']} of {v['steps']}" if "step" in v else ""),
        "retried": lambda: f"{name}: the worker ended{_place(v)}: {v['reason']}; starting it again",
        "detached": lambda: f"{name}: left to {v['job']}",
        "failed": lambda: "\n".join([f"{name}: failed{_place(v)}{_end(v)}", *v["problems"], *_log(v)]),
        "blocked": lambda: f"{name}: not built, since {', '.join(v['by'])} failed",
        "rescored": lambda: f"{name}: scored again from the runs that are here ({os.path.relpath(v['file'])})",
        "done": lambda: f"done: {v['trained']} trained, {v['failed']} failed" + _detached(v),
    }
    if event.event == "scored":
        scores = ", ".join(filter(None, (_scores(split, by_task) for split, by_task in v["scores"].items())))
        return f"{name}: {scores}" if event.name and scores else ""
    return texts[event.event]() if event.event in texts else ""


def _scores(split: str, scores: Mapping[str, float | None]) -> str:
    """Render the overall score on a split or, without one, the leading scores of its tasks; empty without any."""
    if (whole := scores[OVERALL]) is not None:
        return f"{split} {whole:.3f}"
    single = [f"{task} {score:.3f}" for task, score in scores.items() if score is not None and "." not in task]
    return f"{split} {', '.join(single)}" if single else ""


def _epoch(v: Mapping[str, Any]) -> str:
    """Render the epoch of a leaf and the dev score after the last one."""
    return f"epoch {v['epoch'] + 1}" + (f", dev {v['overall']:.3f}" if v["overall"] is not None else "")


def _start(v: Mapping[str, Any]) -> str:
    """Describe how a leaf was started."""
    if "job" in v:
        return f"found again as {v['job']}"
    state = "queued" if v.get("queued") else "training"
    return f"{state}, goes on from its checkpoint" if v["resumed"] else state


def _place(v: Mapping[str, Any]) -> str:
    """Render the host and the peak memory of a worker that ended."""
    memory = f" ({v['megabytes']:,} MB at most)" if "megabytes" in v else ""
    return (f" on {v['host']}" if "host" in v else "") + memory


def _end(v: Mapping[str, Any]) -> str:
    """Render the reason why a worker ended."""
    return f": {v['ended']}" if "ended" in v else ""


def _log(v: Mapping[str, Any]) -> list[str]:
    """Return the line with the path of a failed worker's log."""
    return [f"log: {os.path.relpath(v['log'])}"] if "log" in v else []


def _detached(v: Mapping[str, Any]) -> str:
    """Render the number of leaves that a detached build leaves in training."""
    return f", {v['detached']} left to train; the same build finds them again" if v.get("detached") else ""


class Lines:
    """Plain lines for logs and pipes, with progress of a leaf at most once a minute and ten times in all."""

    def __init__(self, out: TextIO, quiet: bool = False) -> None:
        self.out, self.quiet = out, quiet
        self.reported: dict[str, tuple[float, int]] = {}
        """Monotonic time of the last line of each leaf, and the tenths of its steps done then, by id."""

    def show(self, event: Event) -> None:
        """Print an event; where `quiet`, failures only."""
        text = self._progress(event) if event.event in ("started", "progress") else line(event)
        if text and (not self.quiet or event.event in ("failed", "blocked")):
            print("\n".join(clean(each) for each in text.split("\n")), file=self.out, flush=True)

    def _progress(self, event: Event) -> str:
        """Render the start or the progress of a leaf; empty where a line would come too soon."""
        v, now = event.values, time.monotonic()
        if event.event == "started":
            self.reported[event.id] = now, 0
            return line(event)
        last, tenths = self.reported.setdefault(event.id, (now, 0))
        done = 10 * v["step"] // v["steps"]
        if done in (tenths, 10) or now - last < QUIET_SECONDS:
            return ""
        self.reported[event.id] = now, done
        return f"{event.name}: step {v['step']} of {v['steps']}, {_epoch(v)}"


class JsonLines:
    """JSON Lines on standard output, for programs."""

    def __init__(self) -> None:
        self.out = sys.stdout  # an executor may redirect what its library prints to sys.stdout

    def show(self, event: Event) -> None:
        """Print all values of an event."""
        print(event.to_json(), file=self.out, flush=True)


class Live:
    """Progress bars at the bottom of the terminal, one per leaf in training and one for all; lines scroll above.

    The bars take at most `COLUMNS`, so that the lines of a narrowed terminal do not wrap and can be drawn over.
    """

    COLUMNS = 60

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        widths = {"{task.description}": 20, "{task.fields[done]}": 5, "{task.fields[note]}": 18,
                  "{task.fields[left]}": 6}
        name, *others = (TextColumn(text, markup=False, table_column=Column(max_width=width, no_wrap=True))
                         for text, width in widths.items())
        self.progress = Progress(name, BarColumn(self.COLUMNS - sum(widths.values()) - len(widths)), *others,
                                 console=Console(stderr=True, highlight=False), transient=True)
        self.bars: dict[str, TaskID] = {}
        """Bars of the leaves in training, by id."""
        self.started: set[str] = set()
        """Ids of leaves that were started and have not ended; those without a bar wait in a cluster's queue."""
        self.begun: dict[str, tuple[float, int]] = {}
        """Monotonic time and step of the first progress of each leaf, from which the time left is computed."""
        self.seconds: list[float] = []
        """Of the leaves trained so far."""
        self.all: TaskID | None = None

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.progress.stop()

    def show(self, event: Event) -> None:
        """Update the bars and print lines for events other than progress."""
        v = event.values
        if event.event == "planned" and v["train"] > 1:
            self.all = self.progress.add_task("all leaves", total=v["train"], note="", done="", left="")
        elif event.event == "started":
            self.started.add(event.id)
            if "queued" not in v:
                self._bar(event)
        elif event.event == "progress":
            self.progress.update(self._bar(event), completed=v["step"], total=v["steps"], note=_epoch(v),
                                 done=f"{v['step'] / max(v['steps'], 1):.0%}", left=self._left(event))
        elif event.id in self.started and event.event in ("trained", "failed", "retried"):
            self._remove_bar(event)
        self._show_all()
        text = line(event)
        if text and event.event not in ("started", "progress"):
            self.progress.console.print("\n".join(clean(each) for each in text.split("\n")), markup=False)

    def _bar(self, event: Event) -> TaskID:
        """Return the bar of a leaf, creating it where it has none."""
        if event.id not in self.bars:
            self.bars[event.id] = self.progress.add_task(clean(event.name), total=None, note="starting", done="",
                                                         left="")
        return self.bars[event.id]

    def _left(self, event: Event) -> str:
        """Render the time that a leaf still takes at its speed since its start; empty at first."""
        now, step, steps = time.monotonic(), event.values["step"], event.values["steps"]
        began, first = self.begun.setdefault(event.id, (now, step))
        return duration((now - began) / (step - first) * (steps - step)) if step > first else ""

    def _remove_bar(self, event: Event) -> None:
        """Remove the bar of a leaf that ended, and advance the bar of all unless it is retried."""
        self.started.remove(event.id)
        self.begun.pop(event.id, None)
        if event.id in self.bars:
            self.progress.remove_task(self.bars.pop(event.id))
        if event.event == "trained":
            self.seconds.append(event.values["seconds"])
        if self.all is not None and event.event != "retried":
            self.progress.advance(self.all)

    def _show_all(self) -> None:
        """Show on the bar of all how many leaves ended, run and wait, and the time left once one is trained."""
        if self.all is None:
            return
        bar = self.progress.tasks[self.progress.task_ids.index(self.all)]
        ended, total, running = int(bar.completed), int(bar.total or 0), len(self.bars)
        queued = len(self.started) - running
        note = f"{running} running" + (f", {queued} queued" if queued else "")
        left = sum(self.seconds) / len(self.seconds) * (total - ended) / max(running, 1) if self.seconds else None
        self.progress.update(self.all, note=note, done=f"{ended}/{total}",
                             left="" if left is None else duration(left))


def choose_view(json: bool, quiet: bool) -> AbstractContextManager[View]:
    """Return JSON Lines if requested, else progress bars on a terminal, else plain lines on standard error."""
    if json:
        return nullcontext(JsonLines())
    if sys.stderr.isatty() and not quiet:
        return Live()
    return nullcontext(Lines(sys.stderr, quiet))


def show_all(events: Iterable[Event], view: View) -> Event:
    """Show all events and return the last one."""
    event = Event("done")
    for event in events:
        view.show(event)
    return event
