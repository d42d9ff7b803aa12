"""Example weights by optimal transport (Guo et al. 2022)."""
