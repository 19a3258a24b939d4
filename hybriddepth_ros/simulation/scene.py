"""Scenes of planar textured quads, and the procedural desk that the simulated camera looks at.

World frame: the optical frame of the camera at rest (REP 103: x right, y down, z forward), metres.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.simulation import textures
from hybriddepth_ros.simulation.textures import Color, Texture

Vector = npt.NDArray[np.float64]  # [3]


@dataclass(frozen=True)
class Quad:
    """A textured parallelogram of the points origin + u edge_u + v edge_v [3] m, u and v in 0..1.

    texture [h, w, 3] linear reflectance, u along its columns, v along its rows; `repeat`: how often it tiles
    (u, v); `shade` multiplies it: the light that the surface receives.
    """

    origin: Vector
    edge_u: Vector
    edge_v: Vector
    texture: Texture
    repeat: tuple[float, float] = (1.0, 1.0)
    shade: float = 1.0
    _paint: dict[tuple[int, int], Texture] = field(default_factory=dict, repr=False, compare=False)

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """[4, 3] m, round the rim."""
        u, v = self.edge_u, self.edge_v
        return self.origin + np.stack([0 * u, u, u + v, v])

    @property
    def normal(self) -> Vector:
        """Unit normal; its sign carries no meaning."""
        (a, b, c), (d, e, f) = self.edge_u.tolist(), self.edge_v.tolist()
        n = np.array([b * f - c * e, c * d - a * f, a * e - b * d])  # np.cross takes ten times as long
        return n / np.sqrt(n @ n)

    def paint(self, halvings_u: int, halvings_v: int) -> Texture:
        """[h, w, 4]: the light it sends out, and 1, averaged over 2**halvings texels along each axis."""
        rows, columns = self.texture.shape[:2]
        key = (min(halvings_u, int(np.log2(columns))), min(halvings_v, int(np.log2(rows))))
        if key not in self._paint:  # two threads may both make it; they make the same
            size = (columns >> key[0], rows >> key[1])
            reduced = cv2.resize(self.texture, size, interpolation=cv2.INTER_AREA) * np.float32(self.shade)
            self._paint[key] = np.ascontiguousarray(np.dstack([reduced, np.ones(size[::-1], np.float32)]))
        return self._paint[key]


@dataclass(frozen=True)
class Thing:
    """A convex body or a single surface: quads that never hide each other except by facing away."""

    name: str
    quads: tuple[Quad, ...]
    solid: bool = False  # a closed body: faces turned away from the camera are not drawn

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """[4 * quads, 3] m."""
        return np.concatenate([quad.corners for quad in self.quads])

    @property
    def centre(self) -> Vector:
        """[3] m."""
        centre: Vector = self.corners.mean(axis=0)
        return centre


@dataclass(frozen=True)
class Scene:
    """Things in any order, before a backdrop of one colour (linear RGB) at infinity."""

    things: tuple[Thing, ...]
    backdrop: Color = (0.02, 0.02, 0.02)


def plane_at(depth: float, texture: Texture, width_m: float = 20.0, repeat: float = 1.0) -> Thing:
    """A fronto-parallel wall at `depth` [m], centred on the axis."""
    origin = np.array([-width_m / 2, -width_m / 2, depth])
    right, down = np.array([width_m, 0.0, 0.0]), np.array([0.0, width_m, 0.0])
    return Thing("wall", (Quad(origin, right, down, texture, (repeat, repeat)),))


@functools.lru_cache(maxsize=2)
def desk_scene(seed: int = 0) -> Scene:
    """A desk in a room, seen slightly from above: 0.35 m to 3 m, textured nearly everywhere.

    One box and one sheet carry no texture, as such things do in any real room. The same seed gives the same
    scene.
    """
    rng = np.random.default_rng(seed)
    room = _Room(pitch_deg=16.0)
    table_y, floor_y, wall_z = 0.27, 1.0, 2.9
    palette: list[Color] = [
        (0.55, 0.12, 0.08),
        (0.08, 0.25, 0.45),
        (0.12, 0.38, 0.16),
        (0.62, 0.42, 0.08),
        (0.40, 0.14, 0.38),
        (0.10, 0.42, 0.42),
    ]
    rng.shuffle(palette)
    white, black = (0.72, 0.70, 0.66), (0.03, 0.03, 0.04)

    wall = textures.mottled(rng, 1024, (0.50, 0.46, 0.38), 0.30, 0.9)
    carpet = textures.mottled(rng, 1024, (0.22, 0.18, 0.20), 0.45, 0.7)
    desk = textures.wood(rng, 1024, (0.42, 0.25, 0.13))
    things = [
        Thing("wall", (room.upright(-3.0, 3.0, floor_y, 3.2, wall_z, wall, repeat=(4.0, 2.2), shade=0.8),)),
        Thing("floor", (room.flat(-3.0, 3.0, 0.1, wall_z, floor_y, carpet, repeat=(4.0, 2.0), shade=0.6),)),
        Thing("table", (room.flat(-0.95, 0.95, 0.12, 1.75, table_y, desk, repeat=(2.0, 1.8)),)),
        Thing(
            "poster",
            (
                room.upright(
                    *(-1.25, -0.45, -0.05, 0.62, wall_z - 0.02),
                    textures.printed_page(rng, 512, white, palette[0]),
                ),
            ),
        ),
        Thing("blank sheet", (room.upright(0.35, 1.05, 0.05, 0.6, wall_z - 0.02, textures.plain(white)),)),
    ]

    def jitter(scale: float) -> float:
        return float(rng.uniform(-scale, scale))

    def box(
        name: str, x: float, z: float, size: tuple[float, float, float], yaw_deg: float, texture: Texture
    ) -> None:
        x, z, yaw = x + jitter(0.02), z + jitter(0.03), yaw_deg + jitter(8)
        things.append(Thing(name, room.box(x, table_y, z, size, yaw, texture), solid=True))

    def card(
        name: str, x: float, z: float, width: float, height: float, lean: tuple[float, float], t: Texture
    ) -> None:
        yaw, tilt = lean[0] + jitter(6), lean[1] + jitter(4)
        things.append(Thing(name, (room.card(x + jitter(0.015), table_y, z, width, height, yaw, tilt, t),)))

    box("crate", 0.46, 1.32, (0.34, 0.30, 0.26), 20, textures.checks(rng, 256, palette[1], white, 6))
    box("book", -0.28, 1.05, (0.24, 0.06, 0.18), -15, textures.printed_page(rng, 256, palette[2], white))
    box("carton", 0.10, 0.92, (0.16, 0.20, 0.12), 30, textures.mottled(rng, 256, palette[3], 0.5, 0.8))
    box("plain box", -0.34, 0.74, (0.11, 0.09, 0.09), 15, textures.plain((0.62, 0.60, 0.58)))
    box("small box", 0.20, 0.62, (0.08, 0.07, 0.07), -25, textures.stripes(rng, 256, palette[4], white, 7))
    card("page", -0.52, 1.42, 0.30, 0.40, (12, 8), textures.printed_page(rng, 512, white, black))
    card("photo", 0.02, 1.58, 0.26, 0.34, (-8, 10), textures.mottled(rng, 512, palette[5], 0.7, 1.1))
    card("post", -0.13, 0.52, 0.022, 0.24, (0, 0), textures.stripes(rng, 256, palette[0], white, 5))
    card("label", 0.15, 0.43, 0.055, 0.11, (-20, 12), textures.printed_page(rng, 256, white, palette[1]))
    return Scene(tuple(things))


@dataclass(frozen=True)
class _Room:
    """Places things in a room whose axes are level, below a camera that looks down by `pitch_deg`."""

    pitch_deg: float

    def _quad(
        self,
        origin: Vector,
        u: Vector,
        v: Vector,
        texture: Texture,
        repeat: tuple[float, float],
        shade: float,
    ) -> Quad:
        c, s = np.cos(np.radians(self.pitch_deg)), np.sin(np.radians(self.pitch_deg))
        level_to_camera = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        return Quad(
            level_to_camera @ origin, level_to_camera @ u, level_to_camera @ v, texture, repeat, shade
        )

    def upright(
        self,
        left: float,
        right: float,
        bottom: float,
        height: float,
        z: float,
        texture: Texture,
        repeat: tuple[float, float] = (1.0, 1.0),
        shade: float = 1.0,
    ) -> Quad:
        """A surface facing the camera; `bottom` is its y, and y points down."""
        origin = np.array([left, bottom - height, z])
        along, down = np.array([right - left, 0, 0]), np.array([0, height, 0])
        return self._quad(origin, along, down, texture, repeat, shade)

    def flat(
        self,
        left: float,
        right: float,
        near: float,
        far: float,
        y: float,
        texture: Texture,
        repeat: tuple[float, float] = (1.0, 1.0),
        shade: float = 1.0,
    ) -> Quad:
        """A level surface at height y."""
        origin = np.array([left, y, far])
        along, nearer = np.array([right - left, 0, 0]), np.array([0, 0, near - far])
        return self._quad(origin, along, nearer, texture, repeat, shade)

    def card(
        self,
        x: float,
        base_y: float,
        z: float,
        width: float,
        height: float,
        yaw: float,
        tilt: float,
        texture: Texture,
    ) -> Quad:
        """A card standing on base_y, turned about the vertical by `yaw`, leaning back by `tilt` [degrees]."""
        a, b = np.radians(yaw), np.radians(tilt)
        along = width * np.array([np.cos(a), 0, np.sin(a)])
        down = height * np.array([np.sin(a) * np.sin(b), np.cos(b), -np.cos(a) * np.sin(b)])
        base = np.array([x, base_y, z])
        return self._quad(base - along / 2 - down, along, down, texture, (1.0, 1.0), 1.0)

    def box(
        self,
        x: float,
        base_y: float,
        z: float,
        size: tuple[float, float, float],
        yaw: float,
        texture: Texture,
    ) -> tuple[Quad, ...]:
        """Four sides and the top of a box on base_y; size = (width, height, length) [m]."""
        a = np.radians(yaw)
        along = size[0] * np.array([np.cos(a), 0, np.sin(a)])
        back = size[2] * np.array([-np.sin(a), 0, np.cos(a)])
        down = np.array([0, size[1], 0])
        near_left = np.array([x, base_y, z]) - along / 2 - back / 2 - down
        faces = [
            (near_left, along, down, 0.85),
            (near_left + back, along, down, 0.5),
            (near_left, back, down, 0.6),
            (near_left + along, back, down, 0.7),
            (near_left, along, back, 1.0),
        ]
        return tuple(self._quad(o, u, v, texture, (1.0, 1.0), shade) for o, u, v, shade in faces)
