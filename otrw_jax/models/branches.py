"""Networks that end in several branches: how the branches are named, and whose state is whose."""

import jax
from jaxtyping import PyTree

from otrw_jax.paths import named_leaves, path_name


def branch_names(name: str, branches: int) -> list[str]:
    """Names of a network's last block, once for each branch.

    Args:
        name: of the block in a network without branches; that of the only branch where there is
            one.
        branches: how many.

    Raises:
        ValueError: `branches` is less than 1.
    """
    if branches < 1:
        raise ValueError(f"branches is {branches}; it must be 1 or more.")
    return [name] if branches == 1 else [f"{name}{_suffix(i)}" for i in range(branches)]


def has_branch(tree: PyTree, branch: int) -> bool:
    """Whether a pytree holds anything under a name of branch `branch`, counted from 0."""
    return any(_belongs(path, branch) for path in named_leaves(tree))


def keep_branch(before: PyTree, after: PyTree, branch: int) -> PyTree:
    """What is `after`, but with branch `branch`, counted from 0, as it is in `before`.

    Args:
        before: a pytree, such as batch statistics.
        after: the same after a pass through all branches.
        branch: the one that the pass was not for.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, old, new: old if _belongs(path_name(path), branch) else new, before, after
    )


def _suffix(branch: int) -> str:
    return f"_branch{branch + 1}"


def _belongs(path: str, branch: int) -> bool:
    return any(name.endswith(_suffix(branch)) for name in path.split("/"))
