"""Plans: the graph of what specs need, what of it is missing, and what that would cost."""

from .plan import Plan as Plan
from .plan import Planned as Planned
from .planner import make as make
