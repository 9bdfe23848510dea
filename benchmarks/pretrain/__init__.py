"""Benchmarks that compare the speed and quality of training with other programs, see benchmarks/README.md."""
