"""A scikit-learn classifier whose training examples are weighted by OT; the extra `sklearn`."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Num, Shaped

from otrw_jax.extras import brought_by
from otrw_jax.methods.ot.frozen import Atoms, Cost, WeightsMethod, example_weights

with brought_by("sklearn", __name__):
    from sklearn.base import BaseEstimator, ClassifierMixin, clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.utils import check_random_state
    from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data


def _of_estimator(name: str):
    """Whether the classifier that is trained has a method."""

    def check(self):
        inner = getattr(self, "estimator_", self.estimator)
        getattr(LogisticRegression if inner is None else inner, name)
        return True

    return available_if(check)


class OTReweightedClassifier(ClassifierMixin, BaseEstimator):
    """Trains a classifier on examples weighted by OT to a small balanced meta set.

    The weights are those of `otrw_jax.example_weights`, of the features as they are given: scale
    them first where their units differ (`make_pipeline(StandardScaler(), …)`). They go into the
    classifier's `fit` as `sample_weight`; any classifier that takes these will do.

    A meta set is given to `fit`, or split off the training part: `meta_per_class` examples of each
    class, or half of the smallest class where that is less. `meta_indices_` says which, and their
    weight is 0: the classifier is not trained on them.

    Guo et al., Learning to Re-weight Examples with Optimal Transport for Imbalanced
    Classification, NeurIPS 2022.

    Args:
        estimator: the classifier; by default LogisticRegression with 1,000 iterations.
        method: `"closed_form"` or `"learned"`.
        cost: `"combined"`, `"feature"` or `"label"`.
        measure: `"prototype"` or `"whole"`.
        epsilon: entropic regularisation, in units of the cost.
        meta_per_class: of each class, where no meta set is given.
        random_state: of the meta set that is split off, and of the order of learned weights.

    Attributes:
        classes_: names of the classes, sorted.
        sample_weight_: weight of each row of X; of mean one over the rows that are trained on.
        meta_indices_: rows of X that are the meta set; none where one is given.
        estimator_: the trained classifier.
        n_features_in_: numbers of an example.
        feature_names_in_: names of the columns, where X has any.
    """

    _parameter_constraints = {  # noqa: RUF012
        "estimator": [HasMethods(["fit", "predict"]), None],
        "method": [StrOptions({"closed_form", "learned"})],
        "cost": [StrOptions({"combined", "feature", "label"})],
        "measure": [StrOptions({"prototype", "whole"})],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "meta_per_class": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        method: WeightsMethod = "closed_form",
        cost: Cost = "combined",
        measure: Atoms = "prototype",
        epsilon: float = 0.1,
        meta_per_class: int = 10,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.estimator = estimator
        self.method = method
        self.cost = cost
        self.measure = measure
        self.epsilon = epsilon
        self.meta_per_class = meta_per_class
        self.random_state = random_state

    def fit(
        self,
        X: Num[Array, "n d"],
        y: Shaped[Array, "n"],
        X_meta: Num[Array, "m d"] | None = None,
        y_meta: Shaped[Array, "m"] | None = None,
    ) -> "OTReweightedClassifier":
        """Weighs the examples and trains the classifier.

        Args:
            X: training examples.
            y: their classes, of any kind that scikit-learn takes.
            X_meta: the meta set's examples; or None, and one is split off.
            y_meta: their classes: every one of y's, and no other.

        Raises:
            ValueError: as scikit-learn's own checks; there is one class only; half of a meta set is
                given, or one without a class, or with another; or it is to be split off a class of
                one example.
        """
        self._validate_params()
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} needs two classes or more; y has 1 class.")
        random = check_random_state(self.random_state)
        if (X_meta is None) != (y_meta is None):
            raise ValueError(f"{type(self).__name__}: give both of X_meta and y_meta, or neither.")
        if X_meta is None:
            self.meta_indices_ = self._split_off(labels, random)
            Z, of = X[self.meta_indices_], labels[self.meta_indices_]
        else:
            self.meta_indices_ = np.zeros(0, np.int64)
            Z, of = validate_data(self, X_meta, y_meta, reset=False)
            of = self._numbered(of)
        rows = np.setdiff1d(np.arange(len(X)), self.meta_indices_)
        self.sample_weight_ = np.zeros(len(X))
        self.sample_weight_[rows] = example_weights(
            *(X[rows], labels[rows], Z, of),
            method=self.method,
            cost=self.cost,
            measure=self.measure,
            epsilon=self.epsilon,
            seed=int(random.randint(2**31)),
        )
        default = LogisticRegression(max_iter=1000) if self.estimator is None else self.estimator
        self.estimator_ = clone(default)
        self.estimator_.fit(X[rows], y[rows], sample_weight=self.sample_weight_[rows])
        return self

    def predict(self, X: Num[Array, "n d"]) -> Shaped[np.ndarray, "n"]:
        """The classes of examples."""
        X = self._read(X)
        return self.estimator_.predict(X)

    @_of_estimator("predict_proba")
    def predict_proba(self, X: Num[Array, "n d"]) -> Float[np.ndarray, "n k"]:
        """The classes' probabilities, in the order of `classes_`."""
        X = self._read(X)
        return self.estimator_.predict_proba(X)

    @_of_estimator("decision_function")
    def decision_function(self, X: Num[Array, "n d"]) -> Float[np.ndarray, "..."]:
        """The classifier's own scores."""
        X = self._read(X)
        return self.estimator_.decision_function(X)

    def _read(self, X):
        check_is_fitted(self)
        return validate_data(self, X, reset=False)

    def _numbered(self, y_meta) -> Int[np.ndarray, "m"]:
        """The meta set's classes as places in `classes_`."""
        given = np.unique(y_meta)
        foreign, absent = np.setdiff1d(given, self.classes_), np.setdiff1d(self.classes_, given)
        if len(foreign) or len(absent):
            which, what = (foreign, "y lacks") if len(foreign) else (absent, "y_meta lacks")
            raise ValueError(
                f"{type(self).__name__}: {what} the classes {', '.join(map(str, which[:8]))}; a "
                "meta set has some examples of every class of y, and of no other."
            )
        return np.searchsorted(self.classes_, y_meta)

    def _split_off(self, labels, random: np.random.RandomState) -> Int[np.ndarray, "m"]:
        """Rows of a balanced meta set, at most half of the smallest class's from each, sorted."""
        sizes = np.bincount(labels)
        if sizes.min() < 2:
            raise ValueError(
                f"{type(self).__name__}: the class {self.classes_[sizes.argmin()]} of y has 1 "
                "example, too few to split a meta set off; give X_meta and y_meta."
            )
        count = min(self.meta_per_class, sizes.min() // 2)
        order = random.permutation(len(labels))
        chosen = [order[labels[order] == c][:count] for c in range(len(sizes))]
        return np.sort(np.concatenate(chosen))
