"""Balanced meta-softmax: balanced softmax with learned sampling rates (Ren et al. 2020)."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree, Real

from otrw_jax.checks import check_number
from otrw_jax.classes import class_counts, is_class
from otrw_jax.losses import balanced_softmax, cross_entropy
from otrw_jax.methods.base import Method, check_data
from otrw_jax.methods.meta.meta_loss import check_rates, meta_batch_of, require_meta_set
from otrw_jax.methods.part import Part, TrainState, at_step
from otrw_jax.methods.virtual_step import hypergradient, virtual_step
from otrw_jax.models.model import Model


@flax.struct.dataclass
class BalancedMetaSoftmaxState(TrainState):
    """State of `balanced_meta_softmax`.

    Attributes:
        log_rates: φ; a class is drawn with probability softmax(φ), its examples alike.
        rate_opt_state: the state of the optimiser of φ.
    """

    log_rates: Float[Array, "k"]
    rate_opt_state: PyTree


def balanced_meta_softmax(
    model: Model,
    optimizer: optax.GradientTransformation,
    rate_optimizer: optax.GradientTransformation,
    counts: Real[Array | np.ndarray, "k"],
    *,
    virtual_learning_rate: float | optax.Schedule,
    temperature: float = 1.0,
    initial: float = 0.0,
    meta_batch: int = 512,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Minimises the balanced softmax loss over batches drawn at learned rates of the classes.

    Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020: eq. 4 and
    the meta sampler. Each step: (a) a virtual step of the network on the batch, whose classes are
    seen as straight-through Gumbel-softmax draws with log-rates φ; (b) a step of φ on the plain
    cross-entropy of balanced meta examples after it; (c) the real step. A draw counts as one
    example whatever φ is, so (a) and (c) have the same gradient, and (a) needs no pass of its own.

    The batch is drawn before its step, so the Gumbel noise of its examples is drawn afterwards,
    given that each class won (`posterior_gumbels`). In the authors' program each batch is drawn
    anew with the present rates. Here an epoch's batches are drawn with the rates of the epoch's
    start, while (a) takes the present ones. The authors' Gumbel noise is over the examples, here
    over the classes, with the examples of a class alike; their rates are sigmoids, here
    exponentials.

    Args:
        model: the network.
        optimizer: of the network.
        rate_optimizer: of φ; in the authors' program Adam, at 0.01, or 0.001 for Places-LT.
        counts: training examples of each class, `[K]`, or their proportions.
        virtual_learning_rate: of (a), or a schedule of the step's number. In the authors' program
            the virtual step is one of the network's optimiser, with its momentum and decay.
        temperature: of the softmax that stands in for the draw; 1 in the authors' program.
        initial: p; at first each example is drawn with probability ∝ n_c^-p: all alike with 0, the
            default of the authors' program; 0.3 for Places-LT; all classes alike with 1.
        meta_batch: the most meta examples a step; from a larger meta set they are drawn. The
            authors draw them from the training set, class by class, for CIFAR.
        trainable, batch_norm, axis_name: as of `Part`. The authors train `"head/.*"`, after a stage
            with the cross-entropy.

    Raises:
        ValueError: the temperature is not positive, `meta_batch` is less than 1, another number is
            not finite, a count is negative or not finite, or all are 0; from `init`, no meta set,
            or as `check_data`.
    """
    check_number("balanced_meta_softmax", "temperature", temperature, above=0)
    check_number("balanced_meta_softmax", "initial", initial)
    check_rates("balanced_meta_softmax", meta_batch, virtual_learning_rate)
    loss = balanced_softmax(counts)
    counts = np.asarray(counts, np.float64)
    present = jnp.asarray(counts > 0)
    part = Part(model, optimizer, trainable, batch_norm, axis_name)

    def present_only(log_rates):
        """As low as float32 allows without an infinity, where a class has no example."""
        return jnp.where(present, log_rates, -1e30)

    def init(key, variables, data):
        check_data(model, variables, data, len(counts))
        require_meta_set("balanced_meta_softmax", data)
        log_rates = jnp.asarray((1 - initial) * np.log(np.where(present, counts, 1)), jnp.float32)
        own = {"log_rates": log_rates, "rate_opt_state": rate_optimizer.init(log_rates)}
        return part.start(key, variables, BalancedMetaSoftmaxState, **own)

    def sampling(state, labels):
        own = class_counts(labels, counts.shape[0])[labels].astype(jnp.float32)
        drawn = jax.nn.softmax(present_only(state.log_rates))[labels] / own
        return jnp.where(is_class(labels, counts.shape[0]), drawn, 0.0)

    def step(state, batch, meta):
        now = part.loss_pass(loss, batch, state.variables)
        losses, size = now.losses, now.size
        gradient = now.gradient(jnp.full_like(losses, 1 / size))

        rate = at_step(virtual_learning_rate, state.step)
        virtual = virtual_step(now.trained, gradient, rate)
        meta_key, noise_key = jax.random.split(state.key)
        examples = meta_batch_of(meta, meta_batch, meta_key, state.step)
        direction = part.mean_gradient(cross_entropy, examples, virtual, now.rest)
        slope = now.slopes(direction)
        keys = _example_keys(jax.random.fold_in(noise_key, state.step), batch.labels, axis_name)
        noise = posterior_gumbels(keys, present_only(state.log_rates), batch.labels)

        def objective(losses, log_rates):
            weights = straight_through_weights(
                present_only(log_rates), noise, batch.labels, temperature
            )
            return jnp.sum(weights * losses) / size

        # φ acts on the losses alone: the last part of the virtual step's objective is enough.
        rate_slope = hypergradient(objective, losses, state.log_rates, slope, rate)
        updates, rate_opt_state = rate_optimizer.update(
            part.summed(rate_slope), state.rate_opt_state, state.log_rates
        )
        log_rates = optax.apply_updates(state.log_rates, updates)
        state = part.descend(state, gradient, now.after)
        return state.replace(log_rates=log_rates, rate_opt_state=rate_opt_state), now.metrics

    return Method(init, step, sampling=sampling)


def posterior_gumbels(
    keys: Array, log_rates: Float[Array, "k"], labels: Int[Array, "b"]
) -> Float[Array, "b k"]:
    """Standard Gumbel noise g given that each example's class maximises φ + g.

    The maximum of φ + g is Gumbel about logsumexp φ whatever class it is of, and the other
    entries are Gumbels about their φ, cut off at it. Maddison et al., A* Sampling, NIPS 2014.

    Args:
        keys: one an example, `[b]`.
        log_rates: φ.
        labels: the classes.
    """

    def draw(key, label):
        top_key, key = jax.random.split(key)
        top = jax.nn.logsumexp(log_rates) + jax.random.gumbel(top_key)
        free = log_rates + jax.random.gumbel(key, log_rates.shape)
        below = -jnp.logaddexp(-free, -top)
        mine = jnp.arange(log_rates.shape[0]) == label.astype(jnp.int32)
        return jnp.where(mine, top, below) - log_rates

    return jax.vmap(draw)(keys, labels)


def straight_through_weights(
    log_rates: Float[Array, "k"],
    noise: Float[Array, "b k"],
    labels: Int[Array, "b"],
    temperature: float = 1.0,
) -> Float[Array, "b"]:
    """Weights that are 1, with the slope in φ of the softmax of (φ + g) / T at the class drawn.

    Jang et al., Categorical Reparameterization with Gumbel-Softmax, ICLR 2017, section 2.2.

    Args:
        log_rates: φ.
        noise: g, held fixed.
        labels: the classes drawn.
        temperature: T.
    """
    noise = jax.lax.stop_gradient(noise)
    soft = jax.nn.softmax((log_rates[None, :] + noise) / temperature, axis=1)
    soft = jnp.take_along_axis(soft, labels[:, None], axis=1)[:, 0]
    return 1 + (soft - jax.lax.stop_gradient(soft))


def _example_keys(key: Array, labels: Int[Array, "b"], axis_name: str | None) -> Array:
    """A key an example, by its place in the whole batch."""
    places = jnp.arange(labels.shape[0])
    if axis_name is not None:
        places = places + jax.lax.axis_index(axis_name) * labels.shape[0]
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)
