"""One module a contender, each with `train(job, clock) -> Logits`: its model, its optimizer, its step.

What a peer's training script does between two reads of its clock is done here, in our words, around the model and
optimizer classes that are imported from its checkout: batch, forward, loss, backward, clipping, update, the loss read
back for the log. Evaluation and checkpoints on the way are nobody's.
"""
