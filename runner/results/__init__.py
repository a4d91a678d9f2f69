"""Results: scored trees, significance, leaderboards, plots, reports, the members' contributions."""

from .result import Result as Result
from .result import ResultNode as ResultNode
