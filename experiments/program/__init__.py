"""What a config is made into: data, a network, optimisers, compiled stages."""
