"""The document that lists the network files of a folder, made of their headers."""

import pathlib

from experiments.documents.markdown import table
from experiments.runs.identity import factor_of_flat
from experiments.runs.network_files import SUFFIX, read_about

ABOUT = """# Trained networks

Written by `python -m experiments.report` from the headers of the files beside it. Each is a network
after its first stage, batch statistics included; `stage1_from` takes it as it takes a run's
directory, where the config agrees with it in data, network, first stage and seeds:

    python -m experiments.train \\
        --config=experiments/configs/cifar_lt.py:recipe=otrw_global,protocol=short \\
        --config.stage1_from=results/networks/NAME.safetensors --workdir=runs/on_a_network

This fits `cifar10_if100_ce_short_seed0`; `dataset=cifar100` and `--config.seeds=N` fit others,
`protocol=paper` those of 200 epochs. Of several seeds each finds its own with `{seed}` in place of
the seed. `python -m experiments.export --workdir=RUN --to=FILE` writes one more.

Errors are top-1 errors of the last epoch on the test set in percent, and on the held-out part; *s
an epoch* is the median, without evaluation."""


def document(folder: pathlib.Path) -> str:
    """The whole document; empty where the folder has no network files."""
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        return ""
    rows = [_row(path, read_about(path)) for path in paths]
    header = ["file", "recipe", "data set", "imbalance", "seed", "epochs", "batch", "rate"]
    header += ["error", "held-out", "subset", "MB", "s an epoch", "device"]
    return f"{ABOUT}\n\n{table(header, rows)}\n"


def _row(path: pathlib.Path, about: dict) -> list[str]:
    config, last = about["config"], about["history"][-1]
    seconds = sorted(record["seconds"] for record in about["history"])
    held_out = last.get("held_out")
    return [
        f"`{path.name}`",
        config["recipe"],
        config["data.name"],
        f"{factor:g}" if (factor := factor_of_flat(config)) else "as it is",
        f"{config['seed']}",
        f"{config['stage1.epochs']}",
        f"{config['stage1.batch_size']}",
        f"{config['stage1.optimizer.learning_rate']:g}",
        f"{last['test']['error']:.2f}",
        f"{held_out['error']:.2f}" if held_out else "",
        f"`{about['fingerprint']}`",
        f"{path.stat().st_size / 1e6:.1f}",
        f"{seconds[len(seconds) // 2]:.0f}",
        about["device"],
    ]
