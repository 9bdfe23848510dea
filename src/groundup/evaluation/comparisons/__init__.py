"""Comparisons of models, recipes, readers and classifiers, with confidence intervals."""
