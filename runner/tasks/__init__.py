"""Tasks: what is asked, its examples, predictions and how they are scored."""

from .data import SPLITS as SPLITS
from .data import Data as Data
from .data import Examples as Examples
from .data import Task as Task
from .predictions import Output as Output
from .predictions import Predictions as Predictions
