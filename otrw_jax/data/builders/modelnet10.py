"""The `modelnet10` TFDS dataset: furniture as clouds of points, without TensorFlow."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from otrw_jax.data.builders.clouds import CLASSES, POINTS, reader
from otrw_jax.data.builders.manual import Folder, folders, given_or_downloaded

ARCHIVE = "ModelNet10.zip"
RESAMPLED = "modelnet40_normal_resampled"
_NAMES = ("modelnet10", "ModelNet10", RESAMPLED, ARCHIVE, f"{RESAMPLED}.zip")
PLACES = (*_NAMES, *(f"modelnet10/{name}" for name in _NAMES[1:]))


class ModelNet10(tfds.core.GeneratorBasedBuilder):
    """3,991 + 908 objects of ten classes, each as 1,024 points in the unit sphere, float32.

    A cloud is moved to mean 0 and scaled so that its furthest point lies at 1. It comes from
    Princeton's meshes, from the resampled text files in common use, or ready from Parquet; the
    forms are those of `clouds.reader`. They hold the same objects under the same names, but not
    the same points: results of different forms compare only roughly. They are looked for in TFDS's
    folder of manual downloads, in it or in `modelnet10`, also in the archives `ModelNet10.zip` and
    `modelnet40_normal_resampled.zip`; else the meshes are downloaded.

    Z. Wu et al., 3D ShapeNets: a deep representation for volumetric shapes, CVPR 2015,
    https://modelnet.cs.princeton.edu.
    """

    name = "modelnet10"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"{ARCHIVE} or its folder ModelNet10 (meshes), {RESAMPLED} (text), or a folder modelnet10 "
        "with train.parquet and test.parquet"
    )

    archive_url = f"http://3dvision.princeton.edu/projects/2014/3DShapeNets/{ARCHIVE}"

    @staticmethod
    def find(place: pathlib.Path) -> Folder | None:
        """The folder with the clouds or meshes at or in a place, or None."""
        for folder in folders(place, PLACES):
            if reader(folder) is not None:
                return folder
        return None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Furniture of ten classes as clouds of 1,024 points in the unit sphere.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "points": tfds.features.Tensor(shape=(POINTS, 3), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=("points", "label"),
            homepage="https://modelnet.cs.princeton.edu",
        )

    def _split_generators(self, dl_manager):
        folder = given_or_downloaded(self, dl_manager)
        return {part: self._generate_examples(folder, part) for part in ("train", "test")}

    def _generate_examples(self, folder, part):
        for cloud in reader(folder)(folder, part):
            yield (
                cloud.name,
                {"id": cloud.name, "points": cloud.points, "label": cloud.label},
            )
