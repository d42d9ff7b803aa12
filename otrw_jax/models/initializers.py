"""How the weights of a layer start, as PyTorch's layers do; flax's own He initialiser truncates."""

import flax.linen as nn

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""N(0, 2 / fan_in): `kaiming_normal_`, with which published long-tailed CIFAR results start."""

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within ±1/√fan_in: PyTorch's linear layers."""
