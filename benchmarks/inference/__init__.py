"""Inference speed and quality compared with llama.cpp."""
