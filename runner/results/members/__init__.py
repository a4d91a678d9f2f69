"""Members: how alike the members of an ensemble are, and what each contributes."""
