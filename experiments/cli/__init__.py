"""How a script starts, and how it ends where something is wrong."""

from experiments.cli.script import (
    CHECKPOINT,
    CONFIG,
    DATA_DIR,
    DATASET,
    MARKDOWN,
    RECORDS,
    SEEDS,
    TABLE,
    WORKDIR,
    define_path,
    run_app,
    seeds,
    sentence,
)

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "DATASET",
    "DATA_DIR",
    "MARKDOWN",
    "RECORDS",
    "SEEDS",
    "TABLE",
    "WORKDIR",
    "define_path",
    "run_app",
    "seeds",
    "sentence",
]
