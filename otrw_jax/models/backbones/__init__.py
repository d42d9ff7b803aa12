"""Backbones: inputs to features."""
