"""Round-trip checks: comparison of an imported or exported model with the original, in transformers and llama.cpp."""
