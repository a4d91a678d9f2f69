"""The version of mtrun."""

__version__ = "0.1.0"
