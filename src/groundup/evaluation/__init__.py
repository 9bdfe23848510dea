"""How good a model is: bits per byte beside compressors, with the uncertainty that belongs to it."""
