"""What the weights do for other programs' classifiers, on tables that scikit-learn brings.

python -m experiments.documents.other_learners --markdown=docs/weights_elsewhere.md

Each set is made long-tailed, with a balanced meta set beside it; a third of it, drawn by class, is
the test part. LogisticRegression and LightGBM at their defaults (1,000 iterations) are trained
without weights, with class weights and with those of `otrw_jax.example_weights`; and, since the
meta set is labelled examples too, with these among the training examples.
"""

import textwrap
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Float, Int

from experiments.cli import MARKDOWN, run_app, seeds
from experiments.documents.markdown import rewrite, spread, table
from experiments.documents.paired import verdict
from otrw_jax import example_weights
from otrw_jax.data.splits import make_split
from otrw_jax.extras import brought_by

META_PER_CLASS = 5
SETS = {"digits": ("load_digits", (100, 20)), "breast cancer": ("load_breast_cancer", (50, 10))}
"""Name to scikit-learn's loader, and imbalance factors."""
NONE, BY_CLASS = "no weights", "class weights"
OURS = ("OT, closed form", "OT, learned")
BASES = (NONE, BY_CLASS)


class Parts(NamedTuple):
    """Standardised features and labels of the training, meta and test part."""

    train: tuple[Float[np.ndarray, "n d"], Int[np.ndarray, "n"]]
    meta: tuple[Float[np.ndarray, "m d"], Int[np.ndarray, "m"]]
    test: tuple[Float[np.ndarray, "t d"], Int[np.ndarray, "t"]]


def main(argv: list[str]) -> None:
    """Prints the tables, and writes them into a document."""
    del argv
    chosen = seeds(5)
    texts, every = [], {}
    for name, (_, factors) in SETS.items():
        for factor in factors:
            errors = {seed: errors_of(parts_of(name, factor, seed), seed) for seed in chosen}
            every[f"{name} at {factor}"] = errors
            texts += [shown(f"{name} at {factor}", errors)]
            print(texts[-1], flush=True)
    texts.insert(0, summary(every))
    print(texts[0], flush=True)
    if MARKDOWN.value:
        rewrite(MARKDOWN.value, "\n\n".join(texts), "other learners")


def parts_of(name: str, factor: float, seed: int) -> Parts:
    """A long-tailed training part, a balanced meta part and a test part of a set.

    Args:
        name: of `SETS`.
        factor: largest over smallest class of the training part.
        seed: of the choice of all of them.
    """
    import sklearn.datasets
    from sklearn.model_selection import train_test_split

    x, y = getattr(sklearn.datasets, SETS[name][0])(return_X_y=True)
    rest, test = train_test_split(np.arange(len(y)), test_size=1 / 3, stratify=y, random_state=seed)
    split = make_split(y[rest], imbalance_factor=factor, seed=seed, meta_per_class=META_PER_CLASS)
    ids = rest[split.train], rest[split.meta], test
    mean, deviation = x[ids[0]].mean(0), x[ids[0]].std(0)
    x = (x - mean) / np.where(deviation > 0, deviation, 1)
    return Parts(*((x[part], y[part]) for part in ids))


def weightings(parts: Parts, seed: int) -> dict[str, tuple[Any, Any, Any]]:
    """Examples, labels and weights of each way of training, by its name."""
    x, y = parts.train
    more = np.concatenate([x, parts.meta[0]]), np.concatenate([y, parts.meta[1]])
    closed = example_weights(x, y, *parts.meta)
    learned = example_weights(
        x,
        y,
        *parts.meta,
        method="learned",
        epochs=100,
        epsilon=0.2,
        seed=seed,
        optimizer=optax.sgd(0.003),
    )
    return {
        NONE: (x, y, None),
        BY_CLASS: (x, y, by_class(y)),
        OURS[0]: (x, y, np.asarray(closed)),
        OURS[1]: (x, y, np.asarray(learned)),
        f"{NONE}, meta set trained on": (*more, None),
        f"{BY_CLASS}, meta set trained on": (*more, by_class(more[1])),
    }


def by_class(labels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Weights by which every class has the same sum, of mean one."""
    counts = np.bincount(labels)
    return len(labels) / (len(counts) * counts[labels])


def errors_of(parts: Parts, seed: int) -> dict[tuple[str, str], float]:
    """Balanced test error in percent, by learner and way of training."""
    from sklearn.metrics import balanced_accuracy_score

    found = {}
    ways = weightings(parts, seed)
    for learner, make in learners(seed).items():
        for way, (x, y, weights) in ways.items():
            predicted = make().fit(x, y, sample_weight=weights).predict(parts.test[0])
            found[learner, way] = 100 * (1 - balanced_accuracy_score(parts.test[1], predicted))
    return found


def learners(seed: int) -> dict[str, Callable[[], Any]]:
    """Makers of the classifiers, at their defaults, by name."""
    with brought_by("lightgbm", __name__):
        from lightgbm import LGBMClassifier
    from sklearn.linear_model import LogisticRegression

    return {
        "LogisticRegression": lambda: LogisticRegression(max_iter=1000),
        "LightGBM": lambda: LGBMClassifier(random_state=seed, verbose=-1, n_jobs=1),
    }


def shown(title: str, errors: dict[int, dict[tuple[str, str], float]]) -> str:
    """The tables of a set, of errors by seed, learner and way of training."""
    texts = []
    for learner, of in _by_learner(errors).items():
        rows = []
        for way, values in of.items():
            less = [values - of[base] for base in BASES]
            cells = [spread(d, 1, sign=True) if d.any() else "" for d in less]
            said = [verdict(d, least=True) if d.any() else "" for d in less]
            rows.append([way, spread(values, 1), cells[0], said[0], cells[1], said[1]])
        header = ["weights", "error", f"less {NONE}", "", f"less {BY_CLASS}", ""]
        texts.append(f"{learner}, {title}, {len(errors)} seeds:\n\n{table(header, rows)}")
    return "\n\n".join(texts)


def summary(every: dict[str, dict[int, dict[tuple[str, str], float]]]) -> str:
    """How often the weights of OT show a gain or a loss, and what has the lowest mean errors.

    Args:
        every: errors as of `shown`, by its title.
    """
    tables = {
        f"{learner}, {title}": of
        for title, errors in every.items()
        for learner, of in _by_learner(errors).items()
    }
    texts = []
    for base in BASES[::-1]:
        found = {
            f"{name}: {ours}": verdict(of[ours] - of[base], least=True)
            for name, of in tables.items()
            for ours in OURS
        }
        gains, losses = (
            _named([name for name, said in found.items() if said == kind])
            for kind in ("better", "worse")
        )
        texts.append(
            f"Of {len(found)} comparisons of weights of OT with {base}, {gains} show a gain and "
            f"{losses} a loss."
        )
    lowest = Counter(
        min((values.mean(), way) for way, values in of.items())[1] for of in tables.values()
    )
    most = "; ".join(f"{way} ({count})" for way, count in lowest.most_common())
    texts.append(f"The lowest mean error of {len(tables)} tables: {most}.")
    return textwrap.fill(" ".join(texts), 100)


def _by_learner(errors) -> dict[str, dict[str, Float[np.ndarray, "seeds"]]]:
    """Errors of each way of training, seed by seed, by learner."""
    found: dict[str, dict] = {}
    for learner, way in next(iter(errors.values())):
        values = np.array([one[learner, way] for one in errors.values()])
        found.setdefault(learner, {})[way] = values
    return found


def _named(names: list[str]) -> str:
    return f"{len(names)} ({'; '.join(names)})" if names else "0"


if __name__ == "__main__":
    run_app(main)
