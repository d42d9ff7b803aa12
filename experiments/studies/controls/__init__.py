"""What optimal transport adds: the cells of one table, few programs for them, and what is kept."""
