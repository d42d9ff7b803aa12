import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax import metrics
from otrw_jax.data.streams import Stream
from otrw_jax.methods.base import Examples
from otrw_jax.models.model import Model
from otrw_jax.training.devices import pick_devices
from otrw_jax.training.evaluation import LogitsNotFiniteError, make_evaluator
from otrw_jax.training.seeds import stack

K = 3


def linear_model(passes=None):
    """Logits are inputs times a matrix; `passes` gets the mode each time a pass is traced."""

    def features(variables, inputs, train):
        if passes is not None:
            passes.append(train)
        return inputs, variables["state"]

    return Model(None, features, lambda head, z: z @ head)


def make_problem(n, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 9, (n, 4))
    head = rng.normal(size=(4, K))
    labels = rng.integers(0, K, n)
    variables = {"params": {"backbone": {}, "head": jnp.asarray(head, jnp.float32)}, "state": {}}
    return variables, Examples(jnp.asarray(inputs), jnp.asarray(labels)), (inputs - 4) @ head


def prepare(inputs):
    return inputs.astype(jnp.float32) - 4


@pytest.mark.parametrize("batch_size", [1, 4, 10, 11, 1000])
def test_a_padded_last_batch_does_not_count(batch_size):
    variables, examples, logits = make_problem(11)
    evaluate = make_evaluator(linear_model(), prepare, K, batch_size)
    confusion, bins = evaluate(variables, examples)

    labels = np.asarray(examples.labels)
    expected = np.zeros((K, K), int)
    np.add.at(expected, (labels, logits.argmax(1)), 1)
    np.testing.assert_array_equal(confusion, expected)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence = shares.max(1)
    where = np.ceil(confidence * 15).astype(int) - 1
    right = logits.argmax(1) == labels
    np.testing.assert_array_equal(bins.count, np.bincount(where, minlength=15))
    np.testing.assert_array_equal(bins.correct, np.bincount(where, right, minlength=15))
    np.testing.assert_allclose(
        bins.confidence, np.bincount(where, confidence, minlength=15), rtol=1e-5
    )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("correct", [None, lambda logits: logits - logits.mean(0, keepdims=True)])
def test_inputs_on_the_disk_are_judged_alike(count, correct, tmp_path):
    variables, examples, _ = make_problem(11)
    np.save(tmp_path / "inputs.npy", examples.inputs)
    stream = Stream(np.load(tmp_path / "inputs.npy", mmap_mode="r"), threads=2)
    devices = pick_devices(count)
    evaluate = make_evaluator(linear_model(), prepare, K, 4, devices, correct=correct)
    found = evaluate(variables, examples._replace(inputs=stream))
    for a, b in zip(*map(jax.tree.leaves, (found, evaluate(variables, examples))), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="evaluation: there are 11 streamed inputs and 10 labels"):
        evaluate(variables, Examples(stream, examples.labels[:-1]))


def test_the_network_is_in_evaluation_mode_and_compiled_once():
    passes = []
    variables, examples, _ = make_problem(11)
    evaluate = make_evaluator(linear_model(passes), prepare, K, batch_size=4)
    first = evaluate(variables, examples)
    other = evaluate(
        {**variables, "params": {"backbone": {}, "head": -variables["params"]["head"]}}, examples
    )
    assert passes == [False]
    assert (np.asarray(first.confusion) != np.asarray(other.confusion)).any()


def test_metrics_by_hand():
    # Six examples of classes 0, 0, 0, 1, 1, 2; their predictions are 0, 0, 1, 1, 2, 2.
    labels = jnp.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 2, 2])
    # Two logits of zero and one of ln 8: the confidence is 8/10 for each example.
    inputs = jnp.asarray(np.eye(3)[predictions] * np.log(8), jnp.float32)
    variables = {"params": {"backbone": {}, "head": jnp.eye(3)}, "state": {}}
    evaluate = make_evaluator(linear_model(), lambda x: x, 3, batch_size=4)
    statistics = evaluate(variables, Examples(inputs, labels))
    np.testing.assert_array_equal(statistics.confusion, [[2, 1, 0], [0, 1, 1], [0, 0, 1]])
    summary = metrics.summarise(*statistics, np.array([200, 50, 10]))
    assert summary == pytest.approx(
        {
            "error": 100 * 2 / 6,
            "balanced_accuracy": 100 * (2 / 3 + 1 / 2 + 1) / 3,
            "many_accuracy": 100 * 2 / 3,
            "medium_accuracy": 50.0,
            "few_accuracy": 100.0,
            "ece": 100 * (0.8 - 4 / 6),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize("together", [False, True])
def test_a_correction_sees_the_whole_set(together):
    """However the set is cut into batches: the logits less their mean over all examples."""
    made = [make_problem(11, seed) for seed in (0, 1)]
    evaluate = make_evaluator(
        linear_model(),
        prepare,
        K,
        batch_size=4,
        together=together,
        correct=lambda logits: logits - jnp.mean(logits, axis=0, keepdims=True),
    )
    if together:
        variables, examples = stack([one[0] for one in made]), stack([one[1] for one in made])
        found = evaluate(variables, examples).confusion
        # The same examples for both seeds, given once.
        shared = evaluate(stack([made[0][0]] * 2), made[0][1]).confusion
        np.testing.assert_array_equal(shared, np.stack([found[0]] * 2))
    else:
        found = [evaluate(variables, examples).confusion for variables, examples, _ in made]
    for confusion, (_, examples, logits) in zip(found, made, strict=True):
        expected = np.zeros((K, K), int)
        centred = logits - logits.mean(0)
        np.add.at(expected, (np.asarray(examples.labels), centred.argmax(1)), 1)
        np.testing.assert_array_equal(confusion, expected)


@pytest.mark.parametrize("where", ["input", "network"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("together", "correct"), [(False, None), (True, None), (False, abs)])
def test_logits_that_are_not_finite_are_refused(where, value, together, correct):
    """No metric can be read off them: not of one example, nor of one seed among several."""
    variables, examples, _ = make_problem(5)
    examples = examples._replace(inputs=prepare(examples.inputs))
    bad, seen = variables, examples
    if where == "network":
        head = variables["params"]["head"].at[1, 2].set(value)
        bad = {**variables, "params": {"backbone": {}, "head": head}}
    else:
        seen = examples._replace(inputs=examples.inputs.at[4, 0].set(value))
    evaluate = make_evaluator(
        linear_model(), lambda x: x, K, batch_size=4, together=together, correct=correct
    )
    if together:
        variables, bad = stack([variables] * 2), stack([variables, bad])
        examples, seen = stack([examples] * 2), stack([examples, seen])
    evaluate(variables, examples)
    with pytest.raises(LogitsNotFiniteError, match=r"^evaluation: not all logits of the 5 examp"):
        evaluate(bad, seen)


def test_inputs_of_several_arrays_and_those_on_the_host(monkeypatch):
    """A host's array is read there, a batch at a time: the whole of it may be large."""
    take = jnp.take

    def of_the_device(x, *args, **options):
        assert isinstance(x, jax.Array)
        return take(x, *args, **options)

    monkeypatch.setattr(jnp, "take", of_the_device)
    variables, examples, _ = make_problem(11)
    wanted = make_evaluator(linear_model(), prepare, K, 4)(variables, examples)

    inputs = np.asarray(examples.inputs)
    both = {"first": inputs[:, :2], "last": inputs[:, 2:]}
    of_both = make_evaluator(
        linear_model(), lambda x: prepare(jnp.concatenate([x["first"], x["last"]], axis=1)), K, 4
    )
    found = [of_both(variables, Examples(both, examples.labels))]
    found += [
        make_evaluator(linear_model(), prepare, K, 4)(variables, Examples(inputs, examples.labels))
    ]
    corrected = make_evaluator(
        linear_model(),
        lambda x: prepare(jnp.concatenate([x["first"], x["last"]], axis=1)),
        K,
        4,
        correct=lambda logits: logits,
    )
    found += [corrected(variables, Examples(jax.tree.map(jnp.asarray, both), examples.labels))]
    for one in found:
        for leaf, other in zip(*map(jax.tree.leaves, (one, wanted)), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-6)


@pytest.mark.parametrize("correct", [None, lambda logits: logits])
def test_no_examples(correct):
    variables, examples, _ = make_problem(0)
    with pytest.raises(ValueError, match="evaluation: there are no examples; give one"):
        make_evaluator(linear_model(), prepare, K, correct=correct)(variables, examples)
