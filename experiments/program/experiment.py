"""A config made ready to run: its data, and the program that trains on them."""

from ml_collections import ConfigDict

from experiments.configs.checks.fields import check_config
from experiments.configs.earlier import read_given
from experiments.configs.kinds import ENCODED, FEATURES, IMAGE_FOLDERS, is_streamed
from experiments.configs.user_paths import expand_paths
from experiments.program.compiled import Program, check_streamable
from experiments.program.data import Source
from experiments.program.features import FeatureSource
from experiments.program.images.encoded_images import EncodedImagesSource
from experiments.program.images.image_folder import ImageFolderSource
from experiments.program.prepared import Prepared, prepare
from experiments.recipes import recipe_name
from otrw_jax.training.devices import first_alone, is_first_process, pick_devices
from otrw_jax.training.loop import Loop


class Experiment:
    """A config made ready. Serves several seeds: their data differ, what is compiled does not.

    Attributes:
        config: with the recipe's own fields alone.
        source: of the data set and its splits.
        devices: those that share a batch.
    """

    def __init__(self, config: ConfigDict, new: bool = True):
        """Checks the config, and loads the data set.

        Args:
            config: as a config file gives it.
            new: False for one that a run has been trained with, which is taken as it is.

        Raises:
            ValueError: a field is out of its range, or fields do not go together
                (`experiments.configs.checks.fields`); nothing has been loaded.
        """
        config = read_given(config)
        if new:
            check_config(config)
        self.config = own_fields(config)
        if is_streamed(self.config):
            check_streamable(self.config)
        source = source_of(self.config)
        if is_first_process():
            print(f"{self.config.data.name}: reading the data", flush=True)
        self.source = first_alone(lambda: source(self.config))
        self.devices = pick_devices(self.config.devices)
        self._programs: dict[tuple, Program] = {}
        self._begun: set[Loop] = set()

    def prepare(self, subset_seed: int) -> Prepared:
        """Draws the subset and puts the data on the devices, but for images that are streamed."""
        if is_streamed(self.config):
            return self.source.prepare(self.devices, subset_seed)
        return prepare(self.source, self.devices, subset_seed)

    def program(self, prepared: Prepared) -> Program:
        """What is compiled for data of these counts and shapes; the same for every seed."""
        stored, counts = prepared.train.inputs, tuple(prepared.split.counts.tolist())
        shape = stored.shape[1:], stored.dtype.name
        if (counts, shape) not in self._programs:
            self._programs[counts, shape] = Program(
                self.config, counts, *shape, self.source.preprocessing
            )
        return self._programs[counts, shape]

    def first_time(self, loop: Loop) -> bool:
        """Whether a loop is asked for here for the first time, so that it is yet to compile."""
        if loop in self._begun:
            return False
        self._begun.add(loop)
        return True


def source_of(config: ConfigDict) -> type[Source]:
    """The kind of source that a config's data set has.

    Raises:
        ModuleNotFoundError: images are streamed, and the extra `stream` is not installed.
    """
    name = config.data.name
    if is_streamed(config):
        from experiments.program.images.streamed import StreamedImages  # Of the extra `stream`.

        return StreamedImages
    if name in IMAGE_FOLDERS:
        return ImageFolderSource
    if name in ENCODED:
        return EncodedImagesSource
    return FeatureSource if name in FEATURES else Source


def own_fields(config: ConfigDict) -> ConfigDict:
    """The config by the full name of its recipe, without the fields that other recipes have.

    Raises:
        ValueError: there is no such recipe, or no such user in a path.
    """
    own = ConfigDict(config)
    own.recipe = recipe_name(config.recipe)
    expand_paths(own)
    for part in ("stage2", "options"):
        fields = {name: section for name, section in config[part].items() if name == own.recipe}
        own[part] = ConfigDict(fields)
    return own
