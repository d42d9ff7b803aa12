"""The `sst` TFDS dataset: sentences of the Stanford Sentiment Treebank, without TensorFlow."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

import tensorflow_datasets as tfds

from otrw_jax.data.builders.manual import Folder, SourceError, folders, given_or_downloaded

PARTS = {"train": "train.txt", "validation": "dev.txt", "test": "test.txt"}
ARCHIVE = "trainDevTestTrees_PTB.zip"
PLACES = ("sst", "trees", "sst/trees", ARCHIVE, f"sst/{ARCHIVE}")

# "(3" opens a node with its label; whatever else is no bracket and no space is a word.
_TOKEN = re.compile(r"\([0-4](?= )|[()]|[^() ]+")
_ESCAPES = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
    "``": '"',
    "''": '"',
    "`": "'",
}


@dataclasses.dataclass(eq=False, kw_only=True)
class SstConfig(tfds.core.BuilderConfig):
    """Which classes the five labels of the treebank become.

    Attributes:
        class_names: names of the classes.
        classes: class of each label 0..4, or None where its sentences are left out.
    """

    class_names: tuple[str, ...]
    classes: tuple[int | None, ...]


class Sst(tfds.core.GeneratorBasedBuilder):
    """11,855 sentences of film reviews with their sentiment, as text.

    Each sentence has the label of its tree's root; the labels of phrases are not used. `sst5` has
    the five labels: 8,544 + 1,101 + 2,210 sentences. `sst2` leaves the neutral ones out and joins
    the others to negative and positive: 6,920 + 872 + 1,821.

    The words are joined by spaces, and the escapes and quotation marks of the Penn Treebank
    (`-LRB-`, `\\/`, ``` `` ```) are undone.

    The trees come from `train.txt`, `dev.txt` and `test.txt` in TFDS's folder of manual downloads
    (in it, in `sst` or in `sst/trees`) or from the archive there; else they are downloaded.

    R. Socher et al., Recursive deep models for semantic compositionality over a sentiment
    treebank, EMNLP 2013, https://nlp.stanford.edu/sentiment.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS's own way)
        SstConfig(
            name="sst2",
            description="Two classes; neutral sentences are left out.",
            class_names=("negative", "positive"),
            classes=(0, 0, None, 1, 1),
        ),
        SstConfig(
            name="sst5",
            description="Five classes.",
            class_names=("very negative", "negative", "neutral", "positive", "very positive"),
            classes=(0, 1, 2, 3, 4),
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"train.txt, dev.txt and test.txt, in a folder sst, or {ARCHIVE}"

    archive_url = f"https://nlp.stanford.edu/sentiment/{ARCHIVE}"

    @staticmethod
    def find(place: pathlib.Path) -> Folder | None:
        """The folder with the three files at or in a place, or None."""
        for folder in folders(place, PLACES):
            if all((folder / file).is_file() for file in PARTS.values()):
                return folder
        return None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sentences of film reviews with their sentiment.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=self.builder_config.class_names),
                }
            ),
            supervised_keys=("text", "label"),
            homepage="https://nlp.stanford.edu/sentiment",
        )

    def _split_generators(self, dl_manager):
        folder = given_or_downloaded(self, dl_manager)
        return {part: self._generate_examples(part, folder / file) for part, file in PARTS.items()}

    def _generate_examples(self, part, file):
        for row, (root_label, text) in enumerate(read_trees(file)):
            label = self.builder_config.classes[root_label]
            if label is not None:
                yield row, {"id": f"{part}_{row:05d}", "text": text, "label": label}


def read_trees(file: Folder) -> Iterator[tuple[int, str]]:
    """The root's label, 0..4, and the text of each tree of a file, one bracketed tree a line.

    Blank lines at the end are none.

    Args:
        file: a path, on the disk or in a zip archive.

    Raises:
        SourceError: the file is no UTF-8, or a line no whole tree; the file and line are named.
    """
    try:
        lines = file.read_bytes().decode().rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is no UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            label, words = parse_tree(line.removesuffix("\r"))
        except ValueError as error:
            raise SourceError(f"{file}, line {number}: {error}") from error
        yield label, " ".join(map(_plain, words))


def parse_tree(line: str) -> tuple[int, list[str]]:
    """The root's label and the words of one binary tree, such as "(3 (2 so) (3 good))".

    Args:
        line: each node is "(LABEL WORD)" or "(LABEL NODE NODE)", a label is a digit of 0..4.

    Raises:
        ValueError: the line is anything else.
    """
    tokens = _TOKEN.findall(line)
    words: list[str] = []
    open_nodes: list[int] = []  # Of each, how much it holds: a node is 1, a word 2, which is full.
    for position, token in enumerate(tokens):
        if not open_nodes and position > 0:
            raise ValueError(f"{token!r} follows after the tree's end.")
        if token == "(":
            raise ValueError("a bracket opens without a label from 0 to 4 and a space.")
        if token == ")":
            if not open_nodes or open_nodes.pop() != 2:
                raise ValueError("a bracket closes on neither a word nor two nodes.")
        elif token[0] == "(":
            if open_nodes:
                open_nodes[-1] += 1
            open_nodes.append(0)
        else:
            if not open_nodes or open_nodes[-1]:
                raise ValueError(f"the word {token!r} stands where a node should.")
            open_nodes[-1] = 2
            words.append(token)
    if open_nodes or not tokens:
        raise ValueError(f"the tree is cut off, with {len(open_nodes)} brackets open.")
    return int(tokens[0][1]), words


def _plain(word: str) -> str:
    if word in _ESCAPES:
        return _ESCAPES[word]
    return word.replace("\\/", "/").replace("\\*", "*").replace("\xa0", " ")
