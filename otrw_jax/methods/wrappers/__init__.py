"""Methods made of other methods, and methods that train no parameter."""
