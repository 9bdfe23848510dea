"""Evaluation of classifiers with one label or several labels per text."""
