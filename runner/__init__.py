"""mtrun: a declarative runner for multi-task BERT experiments and for ensembles of them."""

__version__ = "0.1.0"
