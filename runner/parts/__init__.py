"""Pluggable components ("parts") that a spec selects by `type`: one folder per family, one file per part.

A project's own part is a file in its folder `parts/<family>/`. It imports what it needs from here:

    from runner.parts import Head, Task

`mtrun new head NAME` writes a documented template.
"""

from ..part import Member as Member
from ..part import Part as Part
from ..tasks import SPLITS as SPLITS
from ..tasks import Data as Data
from ..tasks import Examples as Examples
from ..tasks import Output as Output
from ..tasks import Predictions as Predictions
from ..tasks import Task as Task
from .adapters import Adapter as Adapter
from .combiners import Combiner as Combiner
from .discovery import find as find
from .discovery import names as names
from .encoders import Encoder as Encoder
from .encoders import Packed as Packed
from .ensembles import Choice as Choice
from .ensembles import Ensemble as Ensemble
from .heads import Head as Head
from .losses import Loss as Loss
from .optimizers import Optimizer as Optimizer
from .regularizers import Regularizer as Regularizer
from .regularizers import Step as Step
from .schedules import Schedule as Schedule
from .suites import Suite as Suite
