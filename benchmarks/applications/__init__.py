"""Benchmarks of the applications, and of answers from documents."""
