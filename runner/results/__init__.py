"""Results: scored trees of specs, tables, tests, plots and the report."""

from .result import Result as Result
from .result import ResultNode as ResultNode
