"""Tasks: labelled examples, predictions, metrics and significance tests."""

from .data import SPLITS as SPLITS
from .data import Data as Data
from .data import Examples as Examples
from .data import Task as Task
from .predictions import Output as Output
from .predictions import Predictions as Predictions
