"""Trained weights of other programs: their files read without those programs, and their names."""
