"""A run and its directory: trained, resumed, taken over, restored."""
