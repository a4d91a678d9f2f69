"""Builds: carry out a plan, score and publish it; remove what nothing needs; bundles."""

from .build import Build as Build
from .events import Event as Event
from .scheduler import Scheduler as Scheduler
