"""Scripts that compose the library into runs that anyone can repeat."""
