"""`fit` on small arrays: what it returns, how it goes on, and what it refuses before training."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import PRESETS, Stage, erm, fit, identity_model, ot_reweight, two_stages
from otrw_jax.files import RunningError, alone_in, read_json, write_json
from otrw_jax.models.heads import LinearHead
from otrw_jax.training.checkpoints import Checkpoints
from otrw_jax.training.fitting import directory
from otrw_jax.training.loop import TrainingDivergedError
from tests.experiments.shared import Interrupted
from tests.methods import problem

pytestmark = pytest.mark.usefixtures("rank_promotion")

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "your_features.md"
TRAIN, META, TEST = (
    tuple(map(np.asarray, problem.make_examples(counts, seed)))
    for seed, counts in enumerate([(26, 10, 4), (4, 4, 4), (8, 8, 8)], 1)
)
ENDS = (2, 5)
stages_of = functools.partial(
    two_stages, problem.MODEL, 3, epochs=(2, 3), batch_sizes=(8, 8), preset="paper"
)


@functools.cache
def stages(**options):
    return stages_of(**options)


def fitted(train=TRAIN, meta=META, given=None, **options):
    return fit(problem.MODEL, train, meta, given or stages(), test=TEST, **options)


@functools.cache
def whole(chosen=False):
    return fitted(held_out=TEST if chosen else None)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.history == other.history and one.epoch == other.epoch


def test_both_stages_are_run_and_all_is_returned():
    end = whole()
    assert [record["stage"] for record in end.history] == ["stage1"] * 2 + ["stage2"] * 3
    assert [record["number"] for record in end.history] == [1, 2, 3, 4, 5] and end.epoch == 5
    assert end.weights.shape == (40,) and end.weights.min() >= 0 and np.ptp(end.weights) > 0
    assert not len(end.meta_rows)
    error = 100 * np.mean(np.asarray(end.predict(TEST[0])) != TEST[1])
    assert error == pytest.approx(end.history[-1]["test"]["error"], abs=1e-4)
    np.testing.assert_allclose(end.probabilities(TEST[0]).sum(1), 1, atol=1e-5)
    with pytest.raises(ValueError, match=r"shape \(2, 4\); give one or more of shape \(5,\)"):
        end.predict(np.zeros((2, 4)))


def test_a_stage_may_be_replaced_and_learn_no_weights():
    alone = fitted(given=stages()[:1], meta=None)
    assert alone.weights is None
    assert alone.history == whole().history[:2]


def test_the_meta_set_is_split_off_and_has_no_weight():
    stage = stages(preset="global", epochs=(1, 1), feature_copies=1)
    end = fitted(meta=2, given=stage)
    assert np.bincount(TRAIN[1][end.meta_rows]).tolist() == [2, 2, 2]
    assert (np.flatnonzero(end.weights == 0) == end.meta_rows).all()
    rows = np.setdiff1d(np.arange(40), end.meta_rows)
    parts = [(TRAIN[0][ids], TRAIN[1][ids]) for ids in (rows, end.meta_rows)]
    given = fitted(*parts, given=stage)
    jax.tree.map(np.testing.assert_array_equal, end.variables, given.variables)
    np.testing.assert_array_equal(end.weights[rows], given.weights)
    assert fitted(meta=2, given=stage[:1], seed=1).meta_rows.tolist() != end.meta_rows.tolist()


def test_kept_features_are_exact_where_nothing_is_augmented():
    ends = [
        fitted(given=stages(preset="global", epochs=(1, 2), feature_copies=copies))
        for copies in (0, 1)
    ]
    for one, other in zip(*(jax.tree.leaves(end.variables) for end in ends), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ends[0].weights, ends[1].weights, rtol=1e-4)


def test_the_held_out_part_chooses_the_epoch():
    end = whole(chosen=True)
    scores = [record["held_out"]["balanced_accuracy"] for record in end.history[2:]]
    assert end.epoch == 3 + int(np.argmax(scores))
    error = 100 * np.mean(np.asarray(end.predict(TEST[0])) != TEST[1])
    assert error == pytest.approx(end.history[end.epoch - 1]["test"]["error"], abs=1e-4)


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_killed_call_ends_bit_for_bit_like_another(after, chosen, tmp_path):
    """After 1 and 4 within a stage, after 2 between them."""

    def kill(record):
        if record["number"] == after:
            raise Interrupted

    options = {"workdir": tmp_path, "held_out": TEST if chosen else None}
    with pytest.raises(Interrupted):
        fitted(watch=kill, **options)
    seen = []
    assert_same(fitted(watch=seen.append, **options), whole(chosen))
    assert [record["number"] for record in seen] == list(range(after + 1, 6))
    assert_same(fitted(watch=pytest.fail, **options), whole(chosen))


def test_a_kill_between_checkpoints_goes_back_to_the_last(tmp_path):
    def kill(record):
        if record["number"] == 4:
            raise Interrupted

    options = {"workdir": tmp_path, "checkpoint_every": 2}
    with pytest.raises(Interrupted):
        fitted(watch=kill, **options)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 4]
    (tmp_path / "checkpoints" / "4" / "checksums.json").write_text("{}")
    assert_same(fitted(**options), whole())


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The directory of a finished call of one stage."""
    workdir = tmp_path_factory.mktemp("fit")
    fitted(given=stages()[:1], workdir=workdir)
    return workdir


def with_rate(rate):
    return (Stage("stage1", erm(problem.MODEL, optax.sgd(rate, momentum=0.9)), 2, 8),)


OTHER_CALLS = {
    "seed": ({"seed": 1}, "seed is 0 there and 1 here"),
    "train": ({"train": (TRAIN[0] + 1, TRAIN[1])}, "arrays of train is"),
    "meta": ({"meta": None}, "arrays of meta is"),
    "epochs": ({"given": stages(epochs=(3, 3))[:1]}, "stage1.epochs is 2 there and 3 here"),
    "rate": ({"given": with_rate(0.2)}, "stage1.program is"),
    "prepare": ({"prepare": lambda x: 2 * x}, "stage1.program is"),
    "stages": ({"given": None}, "stages is stage1 there and stage1, stage2 here"),
}


@pytest.mark.parametrize("other", OTHER_CALLS)
def test_another_calls_directory_is_refused(other, begun):
    options, said = OTHER_CALLS[other]
    before = sorted(path.name for path in (begun / "checkpoints").iterdir())
    with pytest.raises(ValueError, match=f"belongs to another call of fit: .*{said}") as caught:
        fitted(**{"given": stages()[:1], "workdir": begun, "watch": pytest.fail, **options})
    assert str(caught.value).endswith("or repeat that call to go on with it.")
    assert sorted(path.name for path in (begun / "checkpoints").iterdir()) == before


def test_the_same_call_made_anew_is_the_same(begun):
    """Of other functions and another optimiser object, which compute the same."""
    end = fitted(given=with_rate(0.1), workdir=begun, watch=pytest.fail)
    assert end.history == whole().history[:2]


def test_other_versions_are_told_and_other_directories_refused(begun, tmp_path, monkeypatch):
    with alone_in(begun), pytest.raises(RunningError, match="another process is training in"):
        fitted(given=stages()[:1], workdir=begun)
    with monkeypatch.context() as patch:
        patch.setattr(directory, "versions", lambda: {"jax": "another"})
        with pytest.warns(RuntimeWarning, match="to rounding, not bit for bit"):
            fitted(given=with_rate(0.1), workdir=begun)
    call = read_json(begun / "fit.json")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"and no fit.json that says"):
        fitted(workdir=tmp_path)
    write_json(tmp_path / "fit.json", [call])
    with pytest.raises(ValueError, match="is damaged: it says of no call"):
        fitted(workdir=tmp_path)


def test_what_diverges_leaves_the_epochs_before(tmp_path):
    rate = optax.piecewise_constant_schedule(0.1, {5: 1e38})
    given = (Stage("stage1", erm(problem.MODEL, optax.sgd(rate)), 2, 8),)
    with pytest.raises(TrainingDivergedError, match="stage1: the"):
        fitted(given=given, workdir=tmp_path)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [1]


def without(c):
    return tuple(x[TRAIN[1] != c] for x in TRAIN)


def broken(row, value, kind=np.float32):
    inputs = abs(TRAIN[0]).astype(kind)
    inputs[row, 1] = value
    return inputs, TRAIN[1]


NAMES = np.array(["cat", "dog", "eel"])[TRAIN[1]]
OTHER_PRESET = ot_reweight(problem.MODEL, optax.sgd(0.1), optax.sgd(0.1), 4, PRESETS["global"](4))
REFUSED = {
    "no pair": ({"train": TRAIN[0]}, "train is ndarray; give a pair of inputs and labels."),
    "lengths": ({"train": (TRAIN[0], TRAIN[1][1:])}, "inputs have shape (40, 5) and labels (39,)"),
    "lengths of test": ({"held_out": (TEST[0][1:], TEST[1])}, "fit: held_out: inputs have shape"),
    "names": ({"train": (TRAIN[0], NAMES)}, "np.unique(names, return_inverse=True)[1] makes them"),
    "halves": ({"train": (TRAIN[0], TRAIN[1] * 0.5)}, "labels are float64; give whole numbers."),
    "truths": ({"train": (TRAIN[0], TRAIN[1] > 0)}, "labels are bool; give whole numbers."),
    "columns": ({"train": (TRAIN[0], TRAIN[1][:, None])}, "labels have shape (40, 1)"),
    "from 1": ({"train": (TRAIN[0], TRAIN[1] + 1)}, "train: labels are whole numbers from 0 to 2"),
    "negative": ({"meta": (META[0], META[1] - 1)}, "meta: labels are whole numbers from 0 to 2"),
    "nan": ({"train": broken(7, np.nan)}, "1 of 40 inputs have numbers that are not finite, the"),
    "infinite": ({"train": broken(7, np.inf)}, "first of them that of row 7; mend them"),
    "too large": ({"train": (TRAIN[0].astype(float) * 1e300, TRAIN[1])}, "not finite"),
    "beyond int32": ({"train": broken(7, 2**40, int)}, "inputs are int64 from "),
    "beyond uint32": ({"train": broken(7, 2**40, np.uint64)}, "to 1099511627776, beyond uint32"),
    "objects": ({"train": (TRAIN[0].astype(str), TRAIN[1])}, "give numbers, an array [N, ...]"),
    "complex": ({"meta": (META[0] * 1j, META[1])}, "meta: inputs are complex"),
    "scalars": ({"train": (TRAIN[0][:, 0], TRAIN[1])}, "train: inputs are float32 of shape (40,)"),
    "no training example": ({"train": without(1)}, "class 1 has no example in train"),
    "no meta example": ({"meta": (META[0][:8], np.repeat([0, 1], 4))}, "no example in meta"),
    "empty": ({"held_out": (TEST[0][:0], TEST[1][:0])}, "fit: held_out has no example; give some."),
    "width": ({"meta": (META[0][:, :4], META[1])}, "an input of meta is float32 of shape (4,)"),
    "kind": ({"held_out": (TEST[0].astype(int), TEST[1])}, "an input of held_out is int32"),
    "none split off": ({"meta": 0}, "meta is 0; give 1 or more examples of each class, or None"),
    "all split off": ({"meta": 4}, "class 2 has 4 training examples, too few to split 4 off"),
    "batch": ({"given": stages(batch_sizes=(8, 41))}, "stage2: the batch size is 41 and the"),
    "no meta set": ({"meta": None}, "ot_reweight needs a meta set"),
    "epochs": ({"given": (Stage("a", stages()[0].method, 0, 8),)}, "epochs is 0"),
    "names of stages": ({"given": (stages()[0],) * 2}, "give each its own name."),
    "classes": ({"given": (Stage("a", OTHER_PRESET, 1, 8),)}, "is for 4 classes and the data have"),
    "half epochs": ({"given": (Stage("a", stages()[0].method, 1.5, 8),)}, "fit: a: epochs is 1.5"),
    "half": ({"checkpoint_every": 1.5}, "checkpoint_every is 1.5; it must be 1 or more and whole."),
    "often": ({"evaluate_every": 0}, "fit: evaluate_every is 0; it must be 1 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_trained_or_written(case, tmp_path):
    options, said = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        fitted(watch=pytest.fail, workdir=tmp_path / "new", **options)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "papers"}, "preset is 'papers'; choose paper, released, global."),
        ({"epochs": (0, 1)}, "epochs is 0; it must be 1 or more"),
        ({"batch_sizes": (1, 0)}, "batch_sizes is 0"),
        ({"batch_sizes": (1, 1.5)}, "batch_sizes is 1.5; it must be 1 or more and whole."),
        ({"feature_copies": -1}, "feature_copies is -1"),
    ],
)
def test_two_stages_refuse_what_cannot_be(options, said):
    with pytest.raises(ValueError, match=said):
        stages_of(**options)


def test_kept_features_refuse_to_train_the_backbone():
    with pytest.raises(ValueError, match=r"set trainable='head/\.\*', or feature_copies=0"):
        fitted(given=stages(preset="global", trainable=".*", feature_copies=1))


def test_the_program_of_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    """Twice: the second time it takes all from the directory."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(program.strip().splitlines()) <= 11
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()
    for name, counts in {"train": (120, 40, 20), "test": (10, 10, 10)}.items():
        inputs, labels = problem.make_examples(counts, len(name))
        np.save(f"DIR/{name}_features.npy", inputs)
        np.save(f"DIR/{name}_labels.npy", labels)
    for _ in range(2):
        exec(compile(program, str(PAGE), "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[0] == said[1] and said[0].startswith("{'balanced_accuracy': ")
    weights = np.load("weights.npy")
    assert weights.shape == (180,) and (weights == 0).sum() == 15
    names = sorted(path.name for path in (tmp_path / "runs/in_python/checkpoints").iterdir())
    assert names == ["60", "79", "80"]


def test_stored_bytes_are_prepared_and_augmented():
    """Augmentation sees training alone, and goes by the key of each example."""
    stored = tuple((np.clip(40 * x + 128, 0, 255).astype(np.uint8), y) for x, y in (TRAIN, TEST))

    def prepare(inputs):
        return inputs.astype(jnp.float32) / 40

    def augment(keys, inputs):
        noise = jax.vmap(lambda key: jax.random.normal(key, inputs.shape[1:]))(keys)
        return prepare(inputs) + 0.1 * noise

    model = identity_model(LinearHead(3))
    given = (Stage("stage1", erm(model, optax.sgd(0.1)), 2, 8),)
    ends = [
        fit(model, stored[0], None, given, test=stored[1], prepare=prepare, augment=how)
        for how in (None, augment)
    ]
    assert ends[0].history != ends[1].history
    for end in ends:
        kernel, bias = (end.variables["params"]["head"]["Dense_0"][n] for n in ("kernel", "bias"))
        expected = prepare(stored[1][0]) @ kernel + bias[None]
        np.testing.assert_allclose(end.logits(stored[1][0]), expected, rtol=1e-4, atol=1e-4)
