"""One file a dataset family, each a function that returns a ConfigDict."""
