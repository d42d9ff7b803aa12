"""The scikit-learn classifier: scikit-learn's own checks, its meta sets, its weights."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from otrw_jax import example_weights
from otrw_jax.sklearn import OTReweightedClassifier


@pytest.mark.filterwarnings("ignore")  # Of scikit-learn's own making within its checks.
def test_scikit_learn_s_own_checks_are_all_met():
    """Without a meta set, which they do not know; one is split off."""
    statuses = [one["status"] for one in check_estimator(OTReweightedClassifier())]
    assert statuses.count("passed") > 40
    assert set(statuses) <= {"passed", "skipped"}


@pytest.fixture(scope="module")
def flowers():
    """Iris with few of the last class to train on, and a balanced meta set."""
    X, y = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    meta = np.concatenate([np.flatnonzero(y == c)[:5] for c in range(3)])
    train = np.concatenate([np.flatnonzero(y == c)[5 : 5 + n] for c, n in enumerate((30, 20, 4))])
    test = np.setdiff1d(np.arange(150), np.concatenate([meta, train]))
    return {
        name: (X[ids], names[ids])
        for name, ids in {"train": train, "meta": meta, "test": test}.items()
    }


def test_with_a_meta_set_it_is_the_classifier_on_those_weights(flowers):
    X, y = flowers["train"]
    model = OTReweightedClassifier().fit(X, y, *flowers["meta"])
    numbers = np.unique(y, return_inverse=True)[1]
    meta = flowers["meta"][0], np.unique(flowers["meta"][1], return_inverse=True)[1]
    np.testing.assert_allclose(model.sample_weight_, example_weights(X, numbers, *meta), rtol=1e-5)
    alone = LogisticRegression(max_iter=1000).fit(X, y, sample_weight=model.sample_weight_)
    Z, of = flowers["test"]
    np.testing.assert_array_equal(model.predict(Z), alone.predict(Z))
    np.testing.assert_allclose(model.predict_proba(Z), alone.predict_proba(Z))
    assert model.meta_indices_.size == 0 and model.classes_.tolist() == ["a", "b", "c"]
    masses = [model.sample_weight_[y == name].sum() / len(y) for name in "abc"]
    assert masses[2] > 2 * 4 / len(y)
    assert model.score(Z, of) > 0.9


def test_a_meta_set_is_split_off_and_its_rows_weigh_nothing(flowers):
    X, y = flowers["train"]
    model = OTReweightedClassifier(random_state=0).fit(X, y)
    rows = model.meta_indices_
    np.testing.assert_array_equal(np.unique(y[rows], return_counts=True)[1], 2)
    assert not model.sample_weight_[rows].any()
    np.testing.assert_allclose(np.delete(model.sample_weight_, rows).mean(), 1, rtol=1e-5)
    again = OTReweightedClassifier(random_state=0).fit(X, y)
    np.testing.assert_array_equal(again.sample_weight_, model.sample_weight_)
    other = OTReweightedClassifier(random_state=1).fit(X, y)
    assert not np.array_equal(other.meta_indices_, rows)


@pytest.mark.parametrize("classifier", [DecisionTreeClassifier(random_state=0), LinearSVC()])
def test_other_classifiers(flowers, classifier):
    (X, y), (Z, _) = flowers["train"], flowers["test"]
    model = OTReweightedClassifier(classifier).fit(X, y, *flowers["meta"])
    alone = clone(classifier).fit(X, y, sample_weight=model.sample_weight_)
    np.testing.assert_array_equal(model.predict(Z), alone.predict(Z))
    for name in ("predict_proba", "decision_function"):
        assert hasattr(model, name) == hasattr(classifier, name)
        assert hasattr(OTReweightedClassifier(classifier), name) == hasattr(classifier, name)


def test_in_a_pipeline(flowers):
    (X, y), (Z, _) = flowers["train"], flowers["test"]
    chain = make_pipeline(StandardScaler(), OTReweightedClassifier(random_state=0)).fit(X, y)
    scaler = StandardScaler().fit(X)
    alone = OTReweightedClassifier(random_state=0).fit(scaler.transform(X), y)
    np.testing.assert_array_equal(chain.predict(Z), alone.predict(scaler.transform(Z)))


def test_refusals(flowers):
    X, y = flowers["train"]
    Z, of = flowers["meta"]
    fit = OTReweightedClassifier().fit
    with pytest.raises(ValueError, match="give both of X_meta and y_meta, or neither"):
        fit(X, y, Z)
    with pytest.raises(ValueError, match="y_meta lacks the classes c; a meta set has some"):
        fit(X, y, Z[of != "c"], of[of != "c"])
    with pytest.raises(ValueError, match="y lacks the classes c;"):
        fit(X[y != "c"], y[y != "c"], Z, of)
    with pytest.raises(ValueError, match="X has 2 features, but OTReweightedClassifier is expect"):
        fit(X, y, Z[:, :2], of)
    with pytest.raises(ValueError, match="Classifier: the class rare of y has 1 example, too few"):
        fit(np.vstack([X, X[:1]]), [*y, "rare"])
    with pytest.raises(ValueError, match="needs two classes or more; y has 1 class"):
        fit(X[y == "a"], y[y == "a"])
    with pytest.raises(TypeError, match="sample_weight"):
        OTReweightedClassifier(KNeighborsClassifier()).fit(X, y)
