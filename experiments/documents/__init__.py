"""What records say: tables, findings, comparisons seed by seed; and what weights do elsewhere."""
