"""Workers: one leaf in one process, and the executors that start it."""
