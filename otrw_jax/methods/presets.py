"""Three readings of OT re-weighting, each a plain configuration of `ot_reweight`."""

from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.ot.entropic import EntropicOT


def paper(num_classes: int) -> OTReweighting:
    """The paper's text: Algorithm 1 with prototypes, combined cost and learned weights.

    Weights start uniform and stay on the simplex of the batch; the whole network is trained, and
    the OT problem is seen through the virtual step.
    """
    del num_classes
    return OTReweighting()


def released(num_classes: int) -> OTReweighting:
    """The authors' program, where it departs from the text.

    The features of the mean images are those of a pass in training mode, once an epoch. The label
    term of its cost, half the mean over classes of the squared difference of one-hot
    vectors, is 1/K where labels differ. Its Sinkhorn loop stops once potentials move by less than
    0.1 in sum, after two to four iterations; three iterations stand for that here, and are
    differentiated through, as the program does.
    """
    return OTReweighting(
        feature_weight=0.5,
        label_weight=1 / num_classes,
        ot=EntropicOT(max_iterations=3, threshold=0.0, gradient="unrolled"),
        measure="prototype_input",
        initial="effective_number",
        simplex="none",
        features="eval_pass",
        meta_features="refresh",
        meta_batch_norm=True,
        trainable="head/.*",
        batch_norm=True,
        reduction="sum",
        meta_cross_entropy=10.0,
    )


def global_weights(num_classes: int, *, sampling: bool = False) -> OTReweighting:
    """The whole training set's regularised problem, in closed form, at each refresh.

    The head is trained on the mean of `N w_i loss_i`, or on examples drawn by the weights.
    """
    del num_classes
    return OTReweighting(
        weighting="global",
        sampling=sampling,
        meta_features="refresh",
        trainable="head/.*",
        batch_norm=False,
        reduction="mean",
    )


PRESETS = {"paper": paper, "released": released, "global": global_weights}
"""Name to a function from the number of classes to a configuration."""
