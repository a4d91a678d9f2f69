"""Plans: the graph of what specs need, what of it is missing, and what that would cost."""

from .plan import Plan as Plan
from .plan import PlannedNode as PlannedNode
from .planner import make_plan as make_plan
