"""What a config is made into: data, a network, compiled stages."""
