"""Images as data sets of runs: as features, or themselves, read while they are trained on."""
