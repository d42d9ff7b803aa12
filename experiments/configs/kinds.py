"""The kinds of data sets, which decide the fields that `data` and `encoder` of a config have."""

SENTENCES = ("sst2", "sst5")
"""Seen as features of an encoder; drawn by `data.counts`."""

CLOUDS = ("modelnet10",)
"""Of points; drawn by `data.counts`. All other data sets are images, drawn by imbalance factor."""

BY_COUNTS = (*SENTENCES, *CLOUDS)
