"""What records say: tables, findings, comparisons seed by seed."""
