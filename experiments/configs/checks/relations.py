"""Which fields of a config go together."""

from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from experiments.configs.checks.rules import DEPTHS
from experiments.configs.common import levers
from experiments.configs.kinds import BY_COUNTS, FEATURES, LISTED, is_streamed
from experiments.recipes import RECIPES, recipe_name
from experiments.recipes.transport import reweighting_of


def check_controls(config: ConfigDict) -> None:
    """Checks what the table of controls needs of a config beside.

    Args:
        config: with the sections of all recipes.

    Raises:
        ValueError: images stay on the disk; there is no meta set; a stage of which cells are made
            has a lever, which they have not; or a schedule does not fit the epochs of the head, in
            which they train.
    """
    if is_streamed(config):
        raise ValueError(
            "the controls train heads on features that are kept, and the images of this config "
            f"stay on the disk; take {of_features(config)}."
        )
    if not config.data.meta_per_class:
        raise ValueError(
            "data.meta_per_class is 0, and the controls need a meta set: take 1 or more."
        )
    epochs = config.stage2.cb.epochs
    for recipe in ("cb", "otrw_paper", "otrw_released", "otrw_global"):
        section = config.stage2[recipe]
        for lever, off in levers().items():
            given = section.levers[lever]
            if given != off:
                raise ValueError(
                    f"stage2.{recipe}.levers.{lever} is {given}; the controls train heads without "
                    f"levers: leave it at {off}."
                )
        if recipe != "cb":
            name = f"stage2.{recipe}.weight_optimizer"
            for problem in _schedule(name, section.weight_optimizer, epochs):
                raise ValueError(f"{problem} The controls have the {epochs} of stage2.cb.")


def sections(config: ConfigDict) -> dict[str, ConfigDict]:
    """The stages' sections of a config, by dotted name."""
    return {"stage1": config.stage1} | {f"stage2.{k}": v for k, v in config.stage2.items()}


def transport_sections(config: ConfigDict) -> dict[str, ConfigDict]:
    """The sections of the stages of OT re-weighting, by dotted name."""
    given = config.stage2.items()
    return {f"stage2.{name}": section for name, section in given if RECIPES[name].preset}


def _distinct_seeds(config: ConfigDict) -> Iterator[str]:
    if len(set(config.seeds)) < len(config.seeds):
        yield f"seeds={tuple(config.seeds)} has one twice; give each once."


def _shots(config: ConfigDict) -> Iterator[str]:
    many, few = config.shots.many, config.shots.few
    if few > many:
        yield (
            f"shots.few is {few} and shots.many is {many}: no class would be medium-shot; take "
            "a few that is not above many."
        )


def _batch_statistics(config: ConfigDict) -> Iterator[str]:
    if config.recalibration_epochs and config.model.name == "mlp":
        yield (
            f"recalibration_epochs is {config.recalibration_epochs}, and model.name is 'mlp', "
            "which keeps no batch statistics; set recalibration_epochs=0."
        )


def _schedules(config: ConfigDict) -> Iterator[str]:
    for name, section in sections(config).items():
        yield from _schedule(f"{name}.optimizer", section.optimizer, section.epochs)
    for name, section in transport_sections(config).items():
        yield from _schedule(f"{name}.weight_optimizer", section.weight_optimizer, section.epochs)


def _schedule(name: str, optimizer: ConfigDict, epochs: int) -> Iterator[str]:
    milestones, warmup = tuple(optimizer.milestones), optimizer.warmup_epochs
    if optimizer.schedule == "cosine" and milestones:
        yield f"{name}.milestones is {milestones}: a cosine has no milestones; set milestones=()."
    if list(milestones) != sorted(set(milestones)):
        yield f"{name}.milestones is {milestones}; each must be later than the one before."
    if warmup >= epochs:
        yield (
            f"{name}.warmup_epochs is {warmup}, and its stage has {epochs} epochs; it must be "
            "shorter."
        )
    if milestones and not warmup < milestones[0] <= milestones[-1] < epochs:
        yield (
            f"{name}.milestones is {milestones}; each must lie after the warm-up of {warmup} "
            f"epochs and before the {epochs} epochs of its stage end: move them, or set "
            "milestones=()."
        )
    if optimizer.name == "sgd" and optimizer.nesterov and not optimizer.momentum:
        yield f"{name}.nesterov needs a momentum, which is 0; set nesterov=False or a momentum."


def _smoothing(config: ConfigDict) -> Iterator[str]:
    for name, section in sections(config).items():
        tail = section.levers.smoothing_tail
        if tail and not section.levers.smoothing:
            yield (
                f"{name}.levers.smoothing_tail is {tail}, and smoothing is 0, which turns both "
                "off; set a smoothing above 0."
            )


def _choices(config: ConfigDict) -> Iterator[str]:
    for name, section in transport_sections(config).items():
        try:
            reweighting_of(section.choices, 2)  # Any K will do.
        except ValueError as error:
            yield f"{name}.choices: {error}"


def _depths(config: ConfigDict) -> Iterator[str]:
    depths = DEPTHS.get(config.model.name)
    if depths and not depths.holds(config.model.depth):
        yield f"model.depth is {config.model.depth}; it must be {depths.range}."


def _branches(config: ConfigDict) -> Iterator[str]:
    recipe = recipe_name(config.recipe)
    if config.model.name == "resnet_imagenet" and RECIPES[recipe].branches > 1:
        yield (
            f"{recipe} splits the last block of its network, and that of model.name="
            "'resnet_imagenet' is not split; take another recipe."
        )
    if config.model.name == "mlp" and not config.model.hidden and RECIPES[recipe].branches > 1:
        yield (
            f"model.hidden is (), and {recipe} splits the last layer before the head; give "
            "--config.model.hidden a width, as (128,)."
        )


def _middle(config: ConfigDict) -> Iterator[str]:
    encoder = config.get("encoder", {})
    if "resize" in encoder and encoder.side > encoder.resize:
        yield (
            f"encoder.side is {encoder.side}, and encoder.resize is {encoder.resize}: the middle "
            "that is taken must be no larger than the image's shorter side."
        )


def _published(config: ConfigDict) -> Iterator[str]:
    if config.data.name in LISTED and config.data.imbalance_factor is not None:
        yield (
            f"data.imbalance_factor is {config.data.imbalance_factor}, and the lists of "
            f"{config.data.name} are long-tailed as they are; set it to None."
        )


def _streamed(config: ConfigDict) -> Iterator[str]:
    """What of a run does not go together with images that stay on the disk."""
    if not is_streamed(config):
        return
    data, name = config.data, recipe_name(config.recipe)
    if data.side > data.stored:
        yield (
            f"data.side is {data.side}, and data.stored is {data.stored}: the crop must be no "
            "larger than the square that it is taken of."
        )
    if config.steps_per_call == 0:
        yield (
            "steps_per_call is 0, and images that stay on the disk do not fit on the device for a "
            "whole epoch; take 1 or more."
        )
    if config.checkpoint_every != 1:
        yield (
            f"checkpoint_every is {config.checkpoint_every}, and what is done of an epoch goes on "
            "from the one before, which must be saved; set it to 1."
        )
    copies = config.stage2[name].feature_copies if name in config.stage2 else 0
    if copies:
        yield (
            f"stage2.{name}.feature_copies is {copies}, and nothing is kept of images that stay on "
            f"the disk; set it to 0, or train on features: {of_features(config)}."
        )


def of_features(config: ConfigDict) -> str:
    """The config file that sees the images of a streamed config as features."""
    name, file = config.data.name, "experiments/configs/image_folder.py:"
    if name in LISTED:
        file = f"experiments/configs/large_sets.py:dataset={name},"
    return f"--config={file}recipe={recipe_name(config.recipe)}"


def _imbalance(config: ConfigDict) -> Iterator[str]:
    if config.data.name not in (*BY_COUNTS, *FEATURES) and config.data.imbalance_factor is None:
        yield (
            f"data.imbalance_factor is None, and {config.data.name} is balanced as it is; give a "
            "number of 1 or more."
        )


RELATIONS: tuple[Callable[[ConfigDict], Iterator[str]], ...] = (
    _distinct_seeds,
    _shots,
    _batch_statistics,
    _schedules,
    _smoothing,
    _choices,
    _depths,
    _branches,
    _streamed,
    _imbalance,
    _middle,
    _published,
)
"""From a config whose fields are each in range to what is wrong with them together."""
