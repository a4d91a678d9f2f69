"""The registry: finished runs by id, attempts in training, leases and transfer."""

from .attempt import Attempt as Attempt
from .registry import Registry as Registry
from .registry import Run as Run
