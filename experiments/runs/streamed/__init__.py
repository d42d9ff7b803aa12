"""What only runs have whose images stay on the disk."""
