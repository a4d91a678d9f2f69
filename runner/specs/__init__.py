"""Specs: TOML files, resolved to models and ensembles; every problem is reported with its place."""

from .loader import Loader as Loader
from .spec import Filed as Filed
from .spec import Leaf as Leaf
from .spec import Model as Model
from .spec import Stored as Stored
from .spec import Tree as Tree
