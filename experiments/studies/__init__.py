"""Many runs: the tables, their cells and records."""
