"""Which thing hides which: the order far to near in which things can be painted over one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.simulation.scene import Thing

_TOUCHING_M = 1e-6


def far_to_near(things: Sequence[Thing]) -> list[int]:
    """Indices of the things, seen from the origin, in an order in which none is hidden by one before it.

    A thing lies behind another if a plane of one of the two separates them, with the camera on the other's
    side (what Newell's painter's algorithm asks of polygons). Where no plane separates two, the one with the
    farther centre is taken to be behind.
    """
    if not things:
        return []
    behind = _behind(things)
    remaining = sorted(range(len(things)), key=lambda i: -float(np.linalg.norm(things[i].centre)))
    order = []
    while remaining:
        free = (i for i in remaining if not behind[remaining, i].any())
        order.append(next(free, remaining[0]))  # nobody free is a cycle: the farthest goes first
        remaining.remove(order[-1])
    return order


def _behind(things: Sequence[Thing]) -> npt.NDArray[np.bool_]:
    """[T, T]: whether a thing (row) lies behind another (column)."""
    origins = np.array([quad.origin for thing in things for quad in thing.quads])  # [Q, 3]
    normals = np.array([quad.normal for thing in things for quad in thing.quads])  # [Q, 3]
    corners = np.concatenate([thing.corners for thing in things])  # [C, 3]
    counts = np.array([len(thing.quads) for thing in things])
    first_quad = np.concatenate([[0], np.cumsum(counts)[:-1]])

    offsets = (normals * origins).sum(axis=1)
    toward_camera = np.where(offsets < 0, 1.0, -1.0)  # the camera at the origin has the distance -offset
    # [Q, C] m, positive on the camera's side of the plane
    distances = toward_camera[:, None] * (normals @ corners.T - offsets[:, None])
    before = np.minimum.reduceat(distances, 4 * first_quad, axis=1) >= -_TOUCHING_M  # [Q, T]
    beyond = np.maximum.reduceat(distances, 4 * first_quad, axis=1) <= _TOUCHING_M  # [Q, T]
    # A plane separates two things only if its own thing keeps to the other side: a body lies beyond the
    # planes of its near faces and before those of its far faces; a single surface lies in its plane.
    quads, owner = np.arange(len(origins)), np.repeat(np.arange(len(things)), counts)
    own_is_beyond, own_is_before = beyond[quads, owner][:, None], before[quads, owner][:, None]
    behind: npt.NDArray[np.bool_] = (
        np.logical_or.reduceat(before & own_is_beyond, first_quad, axis=0)
        | np.logical_or.reduceat(beyond & own_is_before, first_quad, axis=0).T
    )
    # Two that each lie behind the other do not overlap: a wall and the floor at its foot.
    return behind & ~behind.T
