"""Run the command line: `python -m runner` is `mtrun`."""

from __future__ import annotations

from .cli.app import main

main()
