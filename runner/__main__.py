"""Run the command line: `python -m runner` is `mtrun`."""

from .cli import main

main()
