"""The command line."""

from .app import cli as cli
from .app import main as main
