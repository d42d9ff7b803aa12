"""The `digits` TFDS dataset: scikit-learn's handwritten digits, without TensorFlow."""

import numpy as np
import tensorflow_datasets as tfds

TEST_PER_CLASS = 40


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 handwritten digits of 8×8 pixels, from scikit-learn; nothing is downloaded.

    A pixel is the number of inked dots in a 4×4 block of a 32×32 scan: uint8, 0 to 16. The test
    part is the last 40 examples of each class in scikit-learn's order. That order goes block by
    block of about 130 digits, seemingly one a writer, so most test digits are by hands
    that the training part does not hold.

    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8x8 pixels with values 0 to 16, from scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(names=[str(c) for c in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        from sklearn import datasets  # Slow to import, and needed only here.

        digits = datasets.load_digits()
        test = np.concatenate(
            [np.flatnonzero(digits.target == c)[-TEST_PER_CLASS:] for c in range(10)]
        )
        is_test = np.isin(np.arange(len(digits.target)), test)
        return {
            "train": self._generate_examples(digits, np.flatnonzero(~is_test)),
            "test": self._generate_examples(digits, np.flatnonzero(is_test)),
        }

    def _generate_examples(self, digits, rows):
        for row in rows.tolist():
            image = digits.images[row].astype(np.uint8)[..., None]
            yield row, {"id": f"{row:04d}", "image": image, "label": int(digits.target[row])}
