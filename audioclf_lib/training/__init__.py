"""One fit: batches, optimisation, checkpoints."""
