"""Evaluation of models: metrics with confidence intervals, baselines, comparisons and round-trip checks."""
