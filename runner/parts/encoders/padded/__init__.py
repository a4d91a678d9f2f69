"""Models of transformers on padded batches."""
