"""Callbacks of the training loop: logs, progress, samples, checkpoints of the best weights, and the time limit."""
