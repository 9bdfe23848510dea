"""Drivers: one module per program with `train(job, clock) -> Logits`.

A driver repeats one training step of the program's script with the model and optimizer classes of its checkout: batch,
forward, loss, backward, gradient clipping, optimizer step, and reading the loss. It omits evaluation and checkpoints.
"""
