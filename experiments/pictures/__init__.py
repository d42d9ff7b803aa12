"""Pictures of runs and of the problems that they solve."""
