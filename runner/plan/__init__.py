"""Plans: the graph of nodes that specs need, the action of each node, and a forecast of the cost."""

from .plan import Plan as Plan
from .plan import PlannedNode as PlannedNode
from .planner import make_plan as make_plan
