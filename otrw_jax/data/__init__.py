"""Data sets as arrays, their splits, and what is done to a batch."""
