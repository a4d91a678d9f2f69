"""Training of a leaf: batches, network, loop, checkpoints, evaluation. A run records a hash of each file here."""
