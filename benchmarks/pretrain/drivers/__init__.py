"""Drivers of the compared programs. Each driver is a module with a function `train(job, clock) -> Logits`.

A driver repeats the training step of the program's script, with the program's own model and optimizer classes. A step
consists of the batch, the forward pass, the loss, the backward pass, gradient clipping, the optimizer step, and reading
the loss. Drivers omit evaluation and checkpoints.
"""
