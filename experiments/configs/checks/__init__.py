"""What a config may hold: the range of every field, and which fields go together."""
