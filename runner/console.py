"""Events -> a live terminal, plain lines or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from .errors import clean
from .events import Event
from .scores import OVERALL

if TYPE_CHECKING:
    from rich.progress import TaskID


class View(Protocol):
    """Something that shows events."""

    def show(self, event: Event) -> None:
        """Show one event."""


def line(event: Event) -> str:
    """Return an event as the line that a person reads; empty for what is not worth one."""
    v, name = event.values, event.name or event.id
    texts = {
        "planned": lambda: f"{v['nodes']} nodes, {v['train']} to train",
        "started": lambda: f"{name}: {'goes on from its checkpoint' if v['resumed'] else 'training'}",
        "trained": lambda: f"{name}: trained in {v['seconds']:.1f} s",
        "damaged": lambda: "\n".join([f"{name}: its run is damaged; training it again", *v["problems"]]),
        "elsewhere": lambda: f"{name}: another build is training it{' on ' * bool(v)}{v.get('host', '')}; waiting",
        "interrupted": lambda: f"{name}: stopped" + (f" at step {v['step']} of {v['steps']}" if v else ""),
        "retried": lambda: f"{name}: the worker ended with {v['reason']}; starting it again",
        "failed": lambda: "\n".join([f"{name}: failed", *v["problems"]]),
        "blocked": lambda: f"{name}: not built, since {', '.join(v['by'])} failed",
        "done": lambda: f"done: {v['trained']} trained, {v['failed']} failed",
    }
    if event.event == "scored":
        overall = {split: scores[OVERALL] for split, scores in v["scores"].items() if scores[OVERALL] is not None}
        return f"{name}: " + ", ".join(f"{split} {x:.3f}" for split, x in overall.items()) if event.name else ""
    return texts[event.event]() if event.event in texts else ""


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, out: TextIO, quiet: bool = False) -> None:
        self.out, self.quiet = out, quiet

    def show(self, event: Event) -> None:
        """Print what a person should know; where `quiet`, failures only."""
        text = line(event)
        if text and (not self.quiet or event.event in ("failed", "blocked")):
            print("\n".join(clean(one) for one in text.split("\n")), file=self.out, flush=True)


class JsonLines:
    """One JSON object a line on standard output, for programs."""

    def show(self, event: Event) -> None:
        """Print the event whole."""
        print(event.to_json(), flush=True)


class Live:
    """A bar for each leaf that is being trained, at the foot of the terminal; finished lines scroll above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.completed}/{task.total}"),
                   TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True))
        self.progress = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.progress.stop()

    def show(self, event: Event) -> None:
        """Move the bars; print what is finished."""
        if event.event == "started":
            self.bars[event.id] = self.progress.add_task(event.name, total=None, note="starting")
        elif event.event == "progress":
            v = event.values
            note = f"epoch {v['epoch'] + 1}" + (f", dev {v['overall']:.3f}" if v["overall"] is not None else "")
            self.progress.update(self.bars[event.id], completed=v["step"], total=v["steps"], note=note)
            return
        elif event.id in self.bars and event.event in ("trained", "failed", "retried"):
            self.progress.remove_task(self.bars.pop(event.id))
        text = line(event)
        if text and event.event != "started":
            self.progress.console.print("\n".join(clean(one) for one in text.split("\n")), markup=False)


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
