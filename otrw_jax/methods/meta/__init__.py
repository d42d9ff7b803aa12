"""What is learned by the loss of a balanced meta set."""
