"""Training: all that decides what training computes, and nothing else; every file is fingerprinted."""
