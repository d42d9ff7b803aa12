"""Carries what the agenda needs of long-tailed CIFAR to a bare machine, in files of 60 MB at most.

python -m experiments.packing --pack=packed --dataset=cifar10 --seeds=0,1,2    # where CIFAR is
python -m experiments.packing --packed=packed --data_dir=DIR                 # on the bare machine

Packed are the whole test part, all labels, and of the training images those of the subsets, meta
sets and held-out parts of the agenda's first cells. A file in the data folder that is made of them
says which subsets it holds; a run of another subset is refused (`experiments/program/data.py`).
"""

import pathlib

from experiments.cli import DATA_DIR, DATASET, define_path, run_app, seeds
from experiments.studies.parcels import pack, unpack
from otrw_jax.data.sources import data_root

PACK = define_path("pack", None, "Folder that the files are written to.")
PACKED = define_path("packed", None, "Folder with the files, of which a data folder is made.")


def main(argv: list[str]) -> None:
    """Packs a data set, or makes a data folder of what is packed."""
    del argv
    if bool(PACK.value) == bool(PACKED.value):
        raise ValueError("give one of --pack, to pack, and --packed, to unpack.")
    if PACKED.value:
        for name in unpack(pathlib.Path(PACKED.value), data_root(DATA_DIR.value)):
            print(f"unpacked: {name} in {data_root(DATA_DIR.value)}")
        return
    if DATASET.value not in ("cifar10", "cifar100"):
        raise ValueError(f"--dataset={DATASET.value}: choose cifar10 or cifar100.")
    for path in pack(DATASET.value, DATA_DIR.value, pathlib.Path(PACK.value), seeds(3)):
        print(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_app(main)
