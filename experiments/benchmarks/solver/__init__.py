"""What the benchmark measures of the solver of the OT problem, and of its gradient."""
