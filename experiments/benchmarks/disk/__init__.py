"""Images on the disk: what reading them takes of the host, and what a device asks of it."""
