"""Training speed and quality, compared with other programs; see benchmarks/README.md."""
