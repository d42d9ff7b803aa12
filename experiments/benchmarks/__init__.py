"""What `experiments.benchmark` and `experiments.scaling` measure, a file a subject."""
