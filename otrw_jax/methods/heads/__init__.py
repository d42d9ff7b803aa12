"""Heads on a trained backbone."""
