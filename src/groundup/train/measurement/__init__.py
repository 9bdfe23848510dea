"""Measurements of the machine and of training runs, and the history of predictions."""
