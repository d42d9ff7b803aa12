"""The choices of OT re-weighting, and the OT problem that they make of a batch."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from otrw_jax.checks import check_number
from otrw_jax.methods.base import Examples
from otrw_jax.models.unprepared import prepared
from otrw_jax.ot import costs, measures
from otrw_jax.ot.entropic import EntropicOT
from otrw_jax.ot.measures import Measure
from otrw_jax.ot.weights import Simplex

_AT_LEAST_0 = ("feature_weight", "label_weight", "virtual_learning_rate", "meta_cross_entropy")


@dataclasses.dataclass(frozen=True)
class OTProblem:
    """The OT problem of a batch, and how the network is trained: what Algorithms 1 and 2 share.

    The defaults are the paper's text.

    Attributes:
        cost: eq. 9, 8 or 7, with the weights of its two terms.
        feature_weight: factor of the feature cost in the combined cost.
        label_weight: factor of the label cost in the combined cost.
        ot: solver of the entropic problem; its epsilon serves the closed forms too.
        measure: the balanced measure Q: class means of features (`"prototype"`) or of inputs
            (`"prototype_input"`, the authors' program), every meta example (`"whole"`), one
            random example a class (`"random_sample"`), `measure_size` random prototypes, or
            `measure_size` training examples a class drawn at each refresh (`"dynamic"`).
        measure_size: see `measure`.
        features: the batch's features in the cost: `"virtual"`, after the virtual step (step a);
            `"loss_pass"`, those of the pass that gives the losses; `"eval_pass"`, those of a
            further pass in evaluation mode. With a frozen backbone the virtual step falls away,
            and where the loss pass is in evaluation mode its features serve.
        second_order: differentiate the weights through the virtual step too; nothing to
            differentiate where that step falls away.
        virtual_learning_rate: alpha of the virtual step.
        meta_features: meta features computed at every step, or at each refresh.
        meta_batch_norm: whether the pass that gives them at a refresh is in training mode: by the
            batch statistics of the meta examples (or mean inputs), which move the running ones.
        trainable: which parameters are trained, as in `split_params`.
        batch_norm: whether the loss pass is in training mode.
        reduction: the weighted losses of a batch summed or averaged.
        meta_cross_entropy: factor of the mean cross-entropy of the whole meta set in the objective.

    Raises:
        ValueError: an unknown choice, a number out of its range or not finite, or choices that
            exclude each other.
    """

    cost: Literal["combined", "feature", "label"] = "combined"
    feature_weight: float = 1.0
    label_weight: float = 1.0
    ot: EntropicOT = EntropicOT()
    measure: Literal[
        "prototype", "prototype_input", "whole", "random_sample", "random_prototypes", "dynamic"
    ] = "prototype"
    measure_size: int = 10
    features: Literal["virtual", "loss_pass", "eval_pass"] = "virtual"
    second_order: bool = False
    virtual_learning_rate: float = 2e-5
    meta_features: Literal["step", "refresh"] = "step"
    meta_batch_norm: bool = False
    trainable: str = ".*"
    batch_norm: bool = True
    reduction: Literal["sum", "mean"] = "sum"
    meta_cross_entropy: float = 0.0

    def __post_init__(self):
        own = type(self).__name__
        for field in dataclasses.fields(self):
            choices = getattr(field.type, "__args__", ())
            value = getattr(self, field.name)
            if choices and value not in choices:
                raise ValueError(f"{own}.{field.name} is {value!r}; choose one of {list(choices)}.")
        for name in _AT_LEAST_0:
            check_number(own, name, getattr(self, name), least=0)
        check_number(own, "measure_size", self.measure_size, least=1, whole=True)
        if self.measure == "dynamic" and self.meta_features == "step":
            raise ValueError(
                f"{own}: the dynamic measure is drawn at each refresh; set meta_features='refresh'."
            )
        if self.meta_batch_norm and self.meta_features == "step":
            raise ValueError(
                f"{own}: meta_batch_norm is of the pass at each refresh; set "
                "meta_features='refresh'."
            )
        if self.second_order and self.features != "virtual":
            raise ValueError(
                f"{own}: second_order goes through the virtual step; set features='virtual'."
            )

    @property
    def uses_features(self) -> bool:
        """Whether the cost reads features at all."""
        return self.cost != "label"

    @property
    def reads_inputs(self) -> bool:
        """Whether `init` and `refresh` read the training inputs."""
        return self.measure == "dynamic"


@dataclasses.dataclass(frozen=True)
class OTReweighting(OTProblem):
    """The choices of `ot_reweight`: the OT problem, and the weights that are kept for examples.

    The defaults are the paper's text; presets.py names three readings.

    Attributes:
        weighting: `"learned"`, a step on the kept weights of the batch; `"closed_form"`, the
            optimum of the batch's regularised problem; `"global"`, the optimum over the whole
            training set, found at each refresh and scaled to a mean of one.
        initial: the weights at the start: all one, or the effective-number class weights.
        simplex: how kept weights become probabilities, see `otrw_jax.ot.weights.mass`.
        from_scratch: start every step from the initial weights instead of the learned ones.
        sampling: with `"global"`, draw examples by the weights, their losses unweighted.
        problem: where a batch is spread over devices, one OT problem of the whole `"batch"`, as on
            one device, or one of each `"device"` and its part of the batch, whose weights are
            those of smaller batches: another algorithm, which spares gathering the features.

    Raises:
        ValueError: as `OTProblem`.
    """

    weighting: Literal["learned", "closed_form", "global"] = "learned"
    initial: Literal["uniform", "effective_number"] = "uniform"
    simplex: Simplex = "normalize"
    from_scratch: bool = False
    sampling: bool = False
    problem: Literal["batch", "device"] = "batch"

    def __post_init__(self):
        super().__post_init__()
        if self.second_order and self.weighting != "learned":
            raise ValueError(
                "OTReweighting: second_order goes through the virtual step of learned weights; "
                "set weighting='learned'."
            )
        if self.sampling and self.weighting != "global":
            raise ValueError(
                "OTReweighting: sampling draws by the global weights; set weighting='global'."
            )

    @property
    def reads_inputs(self) -> bool:
        """Whether `init` and `refresh` read the training inputs."""
        return super().reads_inputs or (self.weighting == "global" and self.uses_features)

    @property
    def unit_mass(self) -> bool:
        """Whether the weights of a problem's losses sum to one."""
        if self.weighting == "learned":
            return self.simplex != "none"
        return self.weighting == "closed_form"


def problem_alone(method: str, config: OTProblem) -> OTProblem:
    """The OT problem of a configuration, for a method that keeps no weights.

    Raises:
        ValueError: a field that concerns kept weights is not at its default.
    """
    shared = {field.name for field in dataclasses.fields(OTProblem)}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in shared and value != field.default:
            raise ValueError(
                f"{method}: {field.name}={value!r} concerns weights that are kept for each "
                f"example; leave it at {field.default!r}."
            )
    return OTProblem(**{name: getattr(config, name) for name in shared})


def atoms_before_network(config: OTProblem, meta: Examples, num_classes: int) -> Examples:
    """The meta set as it goes through the network: itself, or one mean input a class."""
    if config.measure != "prototype_input":
        return meta
    inputs = measures.prototypes(prepared(meta.inputs), meta.labels, num_classes)
    return Examples(inputs, jnp.arange(num_classes))


def measure_of(
    config: OTProblem,
    key: Array,
    features: Float[Array, "m d"],
    labels: Int[Array, "m"],
    num_classes: int,
) -> Measure:
    """The measure Q over the features of `atoms_before_network`; random ones draw by `key`."""
    match config.measure:
        case "prototype":
            return measures.prototype_measure(features, labels, num_classes)
        case "random_sample":
            return measures.random_sample(key, features, labels, num_classes)
        case "random_prototypes":
            size = config.measure_size
            return measures.random_prototypes(key, features, labels, num_classes, size)
        case _:
            return measures.whole(features, labels)


def cost_of(
    config: OTProblem,
    features: Float[Array, "n d"] | None,
    labels: Int[Array, "n"],
    measure: Measure,
) -> Float[Array, "n m"]:
    """The cost between training examples and the measure's atoms; features unused by labels."""
    if config.cost == "label":
        return costs.label_cost(labels, measure.labels)
    assert features is not None  # The other costs are of features.
    match config.cost:
        case "feature":
            return costs.feature_cost(features, measure.features)
        case _:
            return costs.combined_cost(
                features,
                labels,
                measure.features,
                measure.labels,
                feature_weight=config.feature_weight,
                label_weight=config.label_weight,
            )
