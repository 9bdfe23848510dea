"""Speed of a model on this machine, compared with llama.cpp."""
