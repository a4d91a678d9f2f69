"""Agreement and contributions of the members of an ensemble."""
