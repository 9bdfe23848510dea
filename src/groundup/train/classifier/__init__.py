"""Training of classifiers: the plan of a run, and the head before step 1."""
