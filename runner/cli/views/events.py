"""Events -> a live terminal, plain lines or JSON lines."""

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

if TYPE_CHECKING:
    from rich.progress import TaskID

QUIET_SECONDS = 60.0
"""How long a leaf is at least not heard of in plain lines."""


class View(Protocol):
    """Something that shows events."""

    def show(self, event: Event) -> None:
        """Show one event."""


def line(event: Event) -> str:
    """Return an event as the line that a person reads; empty for what is not worth one."""
    v, name = event.values, event.name or event.id
    texts = {
        "planned": lambda: f"{v['nodes']} nodes, {v['train']} to train",
        "started": lambda: f"{name}: {_begun(v)}",
        "trained": lambda: f"{name}: trained in {v['seconds']:.1f} s",
        "damaged": lambda: "\n".join([f"{name}: its run is damaged; training it again", *v["problems"]]),
        "elsewhere": lambda: f"{name}: another build is training it{' on ' * bool(v)}{v.get('host', '')}; waiting",
        "interrupted": lambda: f"{name}: stopped" + (f" at step {v['step']} of {v['steps']}" if "step" in v else ""),
        "retried": lambda: f"{name}: the worker ended{_place(v)}: {v['reason']}; starting it again",
        "detached": lambda: f"{name}: left to {v['job']}",
        "failed": lambda: "\n".join([f"{name}: failed{_place(v)}{_end(v)}", *v["problems"], *_log(v)]),
        "blocked": lambda: f"{name}: not built, since {', '.join(v['by'])} failed",
        "rescored": lambda: f"{name}: scored again from the runs that are here ({os.path.relpath(v['file'])})",
        "done": lambda: f"done: {v['trained']} trained, {v['failed']} failed" + _left(v),
    }
    if event.event == "scored":
        said = ", ".join(filter(None, (_scored(split, scores) for split, scores in v["scores"].items())))
        return f"{name}: {said}" if event.name and said else ""
    return texts[event.event]() if event.event in texts else ""


def _scored(split: str, scores: Mapping[str, float | None]) -> str:
    """Return the overall score on a split, or those of single tasks where there is none; empty without any."""
    if (whole := scores[OVERALL]) is not None:
        return f"{split} {whole:.3f}"
    single = [f"{task} {score:.3f}" for task, score in scores.items() if score is not None]
    return f"{split} {', '.join(single)}" if single else ""


def _epoch(v: Mapping[str, Any]) -> str:
    """Return in which epoch a leaf is, and how good it was after the last one."""
    return f"epoch {v['epoch'] + 1}" + (f", dev {v['overall']:.3f}" if v["overall"] is not None else "")


def _begun(v: Mapping[str, Any]) -> str:
    """Return how a leaf was begun."""
    if "job" in v:
        return f"found again as {v['job']}"
    begun = "queued" if v.get("queued") else "training"
    return f"{begun}, goes on from its checkpoint" if v["resumed"] else begun


def _place(v: Mapping[str, Any]) -> str:
    """Return where a worker ended, and how much memory it took."""
    memory = f" ({v['megabytes']:,} MB at most)" if "megabytes" in v else ""
    return (f" on {v['host']}" if "host" in v else "") + memory


def _end(v: Mapping[str, Any]) -> str:
    """Return how a worker ended."""
    return f": {v['ended']}" if "ended" in v else ""


def _log(v: Mapping[str, Any]) -> list[str]:
    """Return the line that names a failed worker's log."""
    return [f"log: {os.path.relpath(v['log'])}"] if "log" in v else []


def _left(v: Mapping[str, Any]) -> str:
    """Return what is to be said of leaves that were left to an engine."""
    return f", {v['detached']} left to train; the same build finds them again" if v.get("detached") else ""


class Lines:
    """Plain lines, for logs and pipes; how far a long leaf is is said at most once a minute, and ten times in all."""

    def __init__(self, out: TextIO, quiet: bool = False) -> None:
        self.out, self.quiet = out, quiet
        self.heard: dict[str, tuple[float, int]] = {}
        """When a leaf was last heard of, by the monotonic clock, and how many tenths it had done, by id."""

    def show(self, event: Event) -> None:
        """Print what a person should know; where `quiet`, failures only."""
        text = self._progress(event) if event.event in ("started", "progress") else line(event)
        if text and (not self.quiet or event.event in ("failed", "blocked")):
            print("\n".join(clean(one) for one in text.split("\n")), file=self.out, flush=True)


    def _progress(self, event: Event) -> str:
        """Return what is to be said of a leaf that begins or goes on."""
        v, now = event.values, time.monotonic()
        if event.event == "started":
            self.heard[event.id] = now, 0
            return line(event)
        said, tenths = self.heard.setdefault(event.id, (now, 0))
        done = 10 * v["step"] // v["steps"]
        if done in (tenths, 10) or now - said < QUIET_SECONDS:
            return ""
        self.heard[event.id] = now, done
        return f"{event.name}: step {v['step']} of {v['steps']}, {_epoch(v)}"


class JsonLines:
    """One JSON object a line on standard output, for programs."""

    def __init__(self) -> None:
        self.out = sys.stdout  # an engine may turn aside what its library prints there

    def show(self, event: Event) -> None:
        """Print the event whole."""
        print(event.to_json(), file=self.out, flush=True)


class Live:
    """A bar for each leaf that is being trained and one for all, at the foot of the terminal; lines scroll above."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.completed}/{task.total}"),
                   TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True))
        self.progress = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
        self.bars: dict[str, TaskID] = {}
        """Bars of the leaves that are being trained, by id."""
        self.begun: set[str] = set()
        """Leaves that were started and have not ended; those without a bar wait in an engine's queue."""
        self.all: TaskID | None = None

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.progress.stop()

    def show(self, event: Event) -> None:
        """Move the bars; print what is finished."""
        v = event.values
        if event.event == "planned" and v["train"] > 1:
            self.all = self.progress.add_task("all leaves", total=v["train"], note="")
        elif event.event == "started":
            self.begun.add(event.id)
            if "queued" not in v:
                self._bar(event)
        elif event.event == "progress":
            self.progress.update(self._bar(event), completed=v["step"], total=v["steps"], note=_epoch(v))
        elif event.id in self.begun and event.event in ("trained", "failed", "retried"):
            self._end(event)
        self._count()
        text = line(event)
        if text and event.event not in ("started", "progress"):
            self.progress.console.print("\n".join(clean(one) for one in text.split("\n")), markup=False)

    def _bar(self, event: Event) -> TaskID:
        """Return the bar of a leaf, a new one where it has none."""
        if event.id not in self.bars:
            self.bars[event.id] = self.progress.add_task(clean(event.name), total=None, note="starting")
        return self.bars[event.id]

    def _end(self, event: Event) -> None:
        """Take a leaf's bar away."""
        self.begun.remove(event.id)
        if event.id in self.bars:
            self.progress.remove_task(self.bars.pop(event.id))
        if self.all is not None and event.event != "retried":
            self.progress.advance(self.all)

    def _count(self) -> None:
        """Say how many leaves run and how many wait."""
        if self.all is not None:
            queued = len(self.begun) - len(self.bars)
            note = f"{len(self.bars)} running" + (f", {queued} queued" if queued else "")
            self.progress.update(self.all, note=note)


def view(json: bool, quiet: bool) -> AbstractContextManager[View]:
    """Return what fits: JSON lines where asked for, bars on a terminal, else plain lines on standard error."""
    if json:
        return nullcontext(JsonLines())
    if sys.stderr.isatty() and not quiet:
        return Live()
    return nullcontext(Lines(sys.stderr, quiet))


def last(events: Iterable[Event], shown: View) -> Event:
    """Show all events and return the last."""
    event = Event("done")
    for event in events:
        shown.show(event)
    return event
