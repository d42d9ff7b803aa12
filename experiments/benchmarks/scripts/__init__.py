"""Scripts as whole processes: how long they take to start, here and in another checkout."""
