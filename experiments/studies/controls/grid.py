"""The cells of the controls: every base with every use of the meta set and every OT step."""

BASES = {
    "ce": "cross-entropy",
    "cb": "class-balanced",
    "la": "logit-adjusted",
    "bs": "balanced softmax",
    "crt": "cRT",
}
"""Of what the head is trained by: name to title. `la` is `ce` whose logits are adjusted after
training (in the loss it would be balanced softmax); `crt` draws classes alike, from a new head."""

META_USES = {"none": "not used", "merged": "in the training set", "ten": "10 × cross-entropy"}
"""What the head sees of the meta set's examples, beside what OT does with them."""

TRANSPORTS = {"none": "no OT", "released": "released", "paper": "paper", "global": "global"}
"""The OT step: none, the authors' program's, the paper's text's, the global closed form."""


def titled(group: str) -> str:
    """The titles of a group of cells `meta/ot`."""
    meta, ot = group.split("/")
    return f"{META_USES[meta]}, {TRANSPORTS[ot]}"
