"""HTML report of all results."""
