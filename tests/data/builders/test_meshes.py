"""Meshes of OFF files: how they are written, refused, and what points of them are."""

import re

import numpy as np
import pytest

from otrw_jax.data.builders.meshes import Mesh, parse_off, sample_surface

SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
SQUARE_OFF = f"OFF\n4 1 0\n{SQUARE}4 0 1 2 3\n"


def _same_mesh(one, other):
    np.testing.assert_array_equal(one.vertices, other.vertices)
    np.testing.assert_array_equal(one.triangles, other.triangles)


@pytest.mark.parametrize(
    "text",
    [
        f"OFF4 1 0\n{SQUARE}4 0 1 2 3\n",
        f"OFF 4 1 0\n{SQUARE}4 0 1 2 3",
        f"OFF\r\n4 1\r\n{SQUARE}4 0 1 2 3 0.1 0.2 0.3\r\n",
        f"# a square\nOFF # so it is\n\n4 1 0\n{SQUARE}\n  4  0 1 2 3 # a face\nmore\n",
        f"OFF\n4 3 0\n{SQUARE}2 0 1\n4 0 1 2 3\n1 2\n",
    ],
)
def test_the_ways_in_which_an_off_file_is_written(text):
    mesh = parse_off(text)
    _same_mesh(mesh, parse_off(SQUARE_OFF))
    np.testing.assert_array_equal(mesh.vertices[2], [1, 1, 0])
    np.testing.assert_array_equal(mesh.triangles, [[0, 1, 2], [0, 2, 3]])


def test_a_polygon_becomes_a_fan_of_its_area():
    angles = 2 * np.pi * np.arange(7) / 7
    vertices = "".join(f"{np.cos(a):.17g} {np.sin(a):.17g} 1e-3\n" for a in angles)
    mesh = parse_off(f"OFF\n7 1 0\n{vertices}7 0 1 2 3 4 5 6\n")
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles], 1, 0)
    assert len(mesh.triangles) == 5
    np.testing.assert_allclose(
        np.cross(b - a, c - a)[:, 2].sum() / 2, 7 / 2 * np.sin(2 * np.pi / 7), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an OFF file begins with OFF, not ''"),
        ("PLY\n4 1 0\n", "an OFF file begins with OFF, not 'PLY'"),
        ("OFF", "the numbers of vertices and faces are ''"),
        ("OFF\nfour 1 0\n", "the numbers of vertices and faces are 'four 1 0'"),
        ("OFF4\n", "the numbers of vertices and faces are '4'"),
        ("OFF\n-1 1 0\n", "-1 vertices and 1 faces are announced, but 0 lines follow"),
        (SQUARE_OFF[:-10], "4 vertices and 1 faces are announced, but 4 lines follow"),
        (SQUARE_OFF[:-2], "the face '4 0 1 2' does not have the vertices it announces"),
        (SQUARE_OFF.replace("1 1 0", "1 1"), "the vertex '1 1' does not have three coordinates"),
        (SQUARE_OFF.replace("1 1 0", "1 one 0"), "could not convert string to float: 'one'"),
        (SQUARE_OFF.replace("1 1 0", "1 nan 0"), "a vertex is not finite"),
        (SQUARE_OFF.replace("4 0 1 2 3", "4 0 1 2 x"), "is not of whole numbers"),
        (SQUARE_OFF.replace("4 0 1 2 3", "0"), "does not have the vertices it announces"),
        (SQUARE_OFF.replace("4 0 1 2 3", "-1 0 1 2 3"), "does not have the vertices it announces"),
        (SQUARE_OFF.replace("4 0 1 2 3", "3 1 2 4"), "faces name vertices from 1 to 4, but there"),
        (SQUARE_OFF.replace("4 0 1 2 3", "3 1 2 -1"), "faces name vertices from -1 to 2"),
    ],
)
def test_what_is_no_off_file_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_off(text)


def test_points_are_uniform_over_the_area():
    """Two triangles of areas 3 and 1, in planes of their own, and one of none between them."""
    first = np.array([[0, 0, 0], [2, 0, 0], [0, 3, 0]], float)
    second = np.array([[0, 0, 5], [1, 0, 5], [1, 2, 5]], float)
    mesh = Mesh(np.concatenate([first, second]), np.array([[0, 1, 2], [0, 1, 1], [3, 4, 5]]))
    count = 40_000
    points = sample_surface(mesh, count, np.random.default_rng(0))
    assert points.shape == (count, 3)
    on_second = points[:, 2] > 4
    assert abs(on_second.mean() - 1 / 4) < 4 * np.sqrt(3 / 16 / count)
    for corners, chosen in ((first, points[~on_second]), (second, points[on_second])):
        # Barycentric coordinates of a uniform point: mean 1/3, covariance of Dirichlet(1, 1, 1).
        ones = np.column_stack([corners[:, :2], np.ones(3)]).T
        places = np.linalg.solve(ones, np.column_stack([chosen[:, :2], np.ones(len(chosen))]).T)
        assert places.min() > -1e-12
        tolerance = 4 / np.sqrt(len(chosen))
        np.testing.assert_allclose(places.mean(1), 1 / 3, atol=tolerance * np.sqrt(1 / 18))
        np.testing.assert_allclose(np.cov(places), (np.eye(3) * 3 - 1) / 36, atol=0.05 / 18)


def test_a_surface_without_area_is_refused():
    mesh = Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match=r"the surface of 1 triangles has an area of 0\.0"):
        sample_surface(mesh, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="the surface of 0 triangles"):
        sample_surface(mesh._replace(triangles=mesh.triangles[:0]), 4, np.random.default_rng(0))
