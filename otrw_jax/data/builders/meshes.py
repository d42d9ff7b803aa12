"""Triangle meshes: OFF files, and points drawn from a surface."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Mesh(NamedTuple):
    """A surface of triangles.

    Attributes:
        vertices: [v, 3], their places.
        triangles: [t, 3], the vertices of each.
    """

    vertices: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "t 3"]


def parse_off(text: str) -> Mesh:
    """Reads a mesh in the OFF format, in float64.

    The counts may stand on the first line, behind "OFF", with or without a space: so they do in
    many files of ModelNet. A face of more than three vertices becomes a fan of triangles around
    its first one, a face of fewer none. Colours behind a face, and lines behind the last face,
    are not read; neither are empty lines and what follows a "#".

    Args:
        text: the content of a file.

    Raises:
        ValueError: the text is no such mesh: another format, cut off, with a number that is none
            or not finite, or with a face of absent vertices.
    """
    lines = [line for line in (line.split("#")[0].strip() for line in text.splitlines()) if line]
    if not lines or not lines[0].startswith("OFF"):
        raise ValueError(f"an OFF file begins with OFF, not {(lines or [''])[0][:20]!r}.")
    header, lines = lines[0][3:], lines[1:]
    if not header.strip():
        header, lines = (lines or [""])[0], lines[1:]
    try:
        num_vertices, num_faces = (int(count) for count in header.split()[:2])
    except ValueError:
        raise ValueError(f"the numbers of vertices and faces are {header[:40]!r}.") from None
    if min(num_vertices, num_faces) < 0 or len(lines) < num_vertices + num_faces:
        raise ValueError(
            f"{num_vertices} vertices and {num_faces} faces are announced, but {len(lines)} "
            "lines follow."
        )
    vertices = _parse_vertices(lines[:num_vertices])
    triangles = _parse_faces(lines[num_vertices : num_vertices + num_faces])
    if triangles.size and (triangles.min() < 0 or triangles.max() >= num_vertices):
        raise ValueError(
            f"faces name vertices from {triangles.min()} to {triangles.max()}, but there are "
            f"{num_vertices}, numbered from 0."
        )
    return Mesh(vertices, triangles)


def sample_surface(
    mesh: Mesh, count: int, rng: np.random.Generator
) -> Float[np.ndarray, "count 3"]:
    """Points drawn independently and uniformly from the surface of a mesh.

    A triangle is drawn in proportion to its area, a point in it as (1 - √u) a + √u (1 - v) b +
    √u v c with u and v uniform.

    R. Osada et al., Shape distributions, ACM Transactions on Graphics 21(4), 2002, section 4.1.

    Args:
        mesh: the surface.
        count: the number of points.
        rng: the source of randomness.

    Raises:
        ValueError: the surface has no area, or one too large for a float64.
    """
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2
    total = areas.sum()
    if not 0 < total < np.inf:
        raise ValueError(f"the surface of {len(areas)} triangles has an area of {total}.")
    # A sum that rounds to below 1 would leave a gap at the end, which the last triangle takes.
    bounds = np.cumsum(areas)[:-1] / total
    chosen = np.searchsorted(bounds, rng.random(count), side="right")
    root, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    return (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]


def _parse_vertices(lines: list[str]) -> np.ndarray:
    rows = [line.split()[:3] for line in lines]
    for row in rows:
        if len(row) != 3:
            raise ValueError(f"the vertex {' '.join(row)!r} does not have three coordinates.")
    vertices = np.array(rows, np.float64).reshape(-1, 3)
    if not np.isfinite(vertices).all():
        raise ValueError("a vertex is not finite.")
    return vertices


def _parse_faces(lines: list[str]) -> np.ndarray:
    triangles = []
    for line in lines:
        size, *rest = line.split()
        try:
            corners = [int(corner) for corner in rest[: int(size)]]
        except ValueError:
            raise ValueError(f"the face {line[:40]!r} is not of whole numbers.") from None
        if len(corners) != int(size) or not corners:
            raise ValueError(f"the face {line[:40]!r} does not have the vertices it announces.")
        triangles += [(corners[0], *corners[i : i + 2]) for i in range(1, len(corners) - 1)]
    return np.array(triangles, np.int64).reshape(-1, 3)
