"""From a config to an optimiser."""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

SCHEDULES = ("steps", "cosine")


def make_optimizer(
    config: ConfigDict,
    steps_per_epoch: int,
    epochs: int = 1,
    sam: float = 0.0,
    rate_drop: tuple[int, float] | None = None,
) -> optax.GradientTransformation:
    """An optimiser as `configs.common.sgd` or `configs.common.adam` describes it.

    Args:
        config: of `sgd` or `adam`.
        steps_per_epoch: steps of an epoch, in which the config counts.
        epochs: of the whole stage, over which a cosine falls to zero.
        sam: radius ρ of sharpness-aware minimisation (Foret et al., ICLR 2021); 0 for none. The
            method must hand its gradient to the optimiser, as `erm` does.
        rate_drop: a step, and what the learning rate is multiplied by from there on, on top of its
            schedule.

    Raises:
        ValueError: an unknown optimiser or schedule, or milestones of a cosine.
    """
    if config.name not in ("sgd", "adam"):
        raise ValueError(f"optimizer.name is {config.name!r}; choose sgd or adam.")
    rate = learning_rate(config, steps_per_epoch, epochs, rate_drop)
    if config.name == "sgd":
        rule = optax.sgd(rate, momentum=config.momentum or None, nesterov=config.nesterov)
    else:
        rule = optax.adam(rate)
    optimizer = optax.chain(optax.add_decayed_weights(config.weight_decay), rule)
    if not sam:
        return optimizer
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(sam))
    return optax.contrib.sam(optimizer, ascent, sync_period=2, opaque_mode=True)


def learning_rate(
    config: ConfigDict,
    steps_per_epoch: int,
    epochs: int,
    rate_drop: tuple[int, float] | None = None,
) -> optax.ScalarOrSchedule:
    """The learning rate by the step, or the constant that it is."""
    rate = _scheduled(config, steps_per_epoch, epochs)
    if rate_drop is None:
        return rate
    start, factor = rate_drop

    def dropped(step):
        now = rate(step) if callable(rate) else rate
        return now * jnp.where(step >= start, factor, 1.0)

    return dropped


def _scheduled(config: ConfigDict, steps_per_epoch: int, epochs: int) -> optax.ScalarOrSchedule:
    if config.schedule not in SCHEDULES:
        raise ValueError(
            f"optimizer.schedule is {config.schedule!r}; choose {' or '.join(SCHEDULES)}."
        )
    cosine, warmup = config.schedule == "cosine", config.warmup_epochs * steps_per_epoch
    if cosine and config.milestones:
        raise ValueError("optimizer: a cosine has no milestones; set milestones=().")
    if not (cosine or config.milestones or warmup):
        return config.learning_rate
    if cosine:
        steps = max(epochs * steps_per_epoch - warmup, 1)
        schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    else:
        schedule = optax.piecewise_constant_schedule(
            config.learning_rate,
            {epoch * steps_per_epoch - warmup: config.decay for epoch in config.milestones},
        )
    if not warmup:
        return schedule
    rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
    return optax.join_schedules([rise, schedule], [warmup])
