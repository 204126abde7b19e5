"""Drawing primitives of the synthetic streets: camera, light, and a canvas of image and label.

World coordinates are in meters: X to the right of the road's center line, Y up from the road,
Z forward from the camera. Colors are RGB float32 in 0..1. Label values are Cityscapes label ids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Union

import cv2
import numpy as np

Color = Union[tuple, np.ndarray]  # (3,)
NEAR = 1.0  # meters; nearer points are moved here, so that none is behind the camera


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along the road from inside a car.

    `horizon` (a row) sets the pitch, `center` (a column) the yaw, `x` the lane, `eye` the height.
    `bend` is the curvature of the street in 1/m: at distance Z everything shifts by bend * Z² / 2.
    """

    width: int
    height: int
    focal: float
    horizon: float
    center: float
    x: float
    eye: float
    bend: float

    def project(self, points) -> np.ndarray:
        """Pixels (n, 2), column first, of world points (n, 3) in meters."""
        x, y, z = np.asarray(points, np.float32).T
        z = np.maximum(z, NEAR)
        pixels = np.empty((len(z), 2), np.float32)
        pixels[:, 0] = self.center + self.focal * ((x - self.x) / z + self.bend * z / 2)
        pixels[:, 1] = self.horizon + self.focal * (self.eye - y) / z
        return pixels

    def ground(self) -> tuple[int, np.ndarray, np.ndarray]:
        """First row below the horizon; X (rows, columns) and Z (rows, 1) of the ground pixels."""
        top = max(0, int(self.horizon) + 1)
        rows = np.arange(top, self.height, dtype=np.float32)[:, None] + 0.5
        z = self.focal * self.eye / (rows - np.float32(self.horizon))
        columns = np.arange(self.width, dtype=np.float32)[None] + 0.5
        x = z * ((columns - self.center) / self.focal - self.bend * z / 2) + self.x
        return top, x.astype(np.float32), z.astype(np.float32)


@dataclass(frozen=True)
class Light:
    """Sunlight, sky light and haze of a scene; `sun` is the unit vector toward the sun."""

    sun: tuple[float, float, float]
    sun_color: np.ndarray
    ambient: np.ndarray
    haze: np.ndarray
    visibility: float

    def shade(self, color: Color, normal, depth: float) -> np.ndarray:
        """Apparent color of a surface: lit on the side of its `normal`, hazy at `depth` meters.

        `color` is one color (3,) or a texture (rows, columns, 3).
        """
        incidence = max(0.0, sum(s * n for s, n in zip(self.sun, normal)))
        clear = math.exp(-depth / self.visibility)
        light = (self.ambient + incidence * self.sun_color) * clear
        veil = self.haze * (1 - clear)
        if np.ndim(color) == 1:
            return color * light + veil
        return cv2.transform(np.asarray(color), np.column_stack([np.diag(light), veil]))


def as_float32(values) -> np.ndarray:
    """The values as a float32 array."""
    return np.asarray(values, np.float32)


def mix(*parts: tuple[np.ndarray, Color]) -> np.ndarray:
    """A texture (rows, columns, 3): the sum of up to four colors, each times a weight plane.

    With OpenCV, because numpy is slow along an axis of three.
    """
    weights, colors = zip(*parts)
    return cv2.transform(cv2.merge(weights), as_float32(colors).T)


def fractal_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise (height, width) float32, about -1..1, of five scales from coarse to fine."""
    total = np.zeros((height, width), np.float32)
    for cells, weight in ((4, 0.3), (12, 0.25), (40, 0.25), (120, 0.25), (256, 0.2)):
        grid = rng.standard_normal((cells, 2 * cells), dtype=np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return total


class Canvas:
    """Image (h, w, 3) float32 and label (h, w) uint8, always painted together."""

    def __init__(self, camera: Camera, light: Light, rng: np.random.Generator):
        self.camera = camera
        self.light = light
        self.image = np.zeros((camera.height, camera.width, 3), np.float32)
        self.label = np.zeros((camera.height, camera.width), np.uint8)
        self.noise = fractal_noise(rng, camera.height, camera.width)

    def paint(
        self,
        mask: np.ndarray,
        texture: np.ndarray,
        label_id: Union[int, np.ndarray, None] = None,
        at: tuple[int, int] = (0, 0),
        alpha: float = 1.0,
    ) -> None:
        """Paint `texture` where `mask` (both rows, columns) is set, their first pixel on `at`.

        `label_id` is one id, or one per pixel; None keeps the labels (markings, reflections).
        """
        window = np.s_[at[0] : at[0] + mask.shape[0], at[1] : at[1] + mask.shape[1]]
        region = self.image[window]
        if alpha < 1:
            texture = cv2.addWeighted(region, 1 - alpha, texture, alpha, 0)
        cv2.copyTo(texture, mask, region)
        if label_id is not None:
            np.copyto(self.label[window], np.uint8(label_id), where=mask.astype(bool))

    def box(self, points: np.ndarray) -> Optional[tuple[int, int, int, int]]:
        """(top, left, rows, columns) spanned by `points` (n, 2) on the canvas, None if empty."""
        left, top = (max(int(low), 0) for low in points.min(axis=0).tolist())
        right, bottom = (int(high) + 2 for high in points.max(axis=0).tolist())
        rows = min(bottom, self.label.shape[0]) - top
        columns = min(right, self.label.shape[1]) - left
        return (top, left, rows, columns) if rows > 0 and columns > 0 else None

    def grain(self, top: int, left: int, rows: int, columns: int) -> np.ndarray:
        """Noise (rows, columns) for an object in this box; other boxes get other noise."""
        spare_rows = self.noise.shape[0] - rows
        spare_columns = self.noise.shape[1] - columns
        row = (top * 7 + rows * 13) % (spare_rows + 1)
        column = (left * 5 + columns * 11) % (spare_columns + 1)
        return self.noise[row : row + rows, column : column + columns]

    def polygon(
        self,
        points: np.ndarray,
        color: Color,
        label_id: Optional[int] = None,
        grain: float = 0.0,
        alpha: float = 1.0,
    ) -> None:
        """Fill a polygon of pixels (n, 2) with a color, roughened by `grain`."""
        box = self.box(points)
        if box is None:
            return
        if grain == 0 and alpha == 1:  # fast path: a uniform color needs no mask
            self._draw_both(cv2.fillPoly, [_fixed_point(points)], color, label_id, shift=4)
            return
        mask = np.zeros(box[2:], np.uint8)
        cv2.fillPoly(mask, [_fixed_point(points - (box[1], box[0]))], 1, shift=4)
        texture = mix((1 + grain * self.grain(*box), color))
        self.paint(mask, texture, label_id, box[:2], alpha)

    def stroke(
        self, points: np.ndarray, width: float, color: Color, label_id: Optional[int] = None
    ) -> None:
        """Draw a round-ended line of `width` pixels along pixels (n, 2)."""
        path = [_fixed_point(points)]
        style = {"isClosed": False, "thickness": max(1, round(width)), "shift": 4}
        self._draw_both(cv2.polylines, path, color, label_id, **style)

    def _draw_both(self, draw, shape, color: Color, label_id: Optional[int], **style) -> None:
        draw(self.image, shape, color=[float(c) for c in color], **style)
        if label_id is not None:
            draw(self.label, shape, color=label_id, **style)

    def face(
        self,
        corners,
        color: Color,
        label_id: Optional[int] = None,
        normal=None,
        grain: float = 0.0,
        alpha: float = 1.0,
    ) -> None:
        """Fill a flat polygon in the world (n, 3), lit by `normal` (default: its own normal)."""
        corners = np.asarray(corners, np.float32)
        if normal is None:
            normal = face_normal(corners)
        shaded = self.light.shade(color, normal, float(corners[0, 2]))
        self.polygon(self.camera.project(corners), shaded, label_id, grain, alpha)

    def warp(self, texture: np.ndarray, corners: np.ndarray, label_id: int) -> None:
        """Stretch a texture (rows, columns, 3) over a rectangle in the world.

        `corners` (4, 3) are its top left, top right, bottom right and bottom left.
        """
        points = self.camera.project(corners)
        box = self.box(points)
        if box is None:
            return
        top, left, rows, columns = box
        height, width = texture.shape[:2]
        source = as_float32([[0, 0], [width, 0], [width, height], [0, height]])
        points = (points - (left, top)).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source, points)
        warped = cv2.warpPerspective(
            texture, matrix, (columns, rows), borderMode=cv2.BORDER_REPLICATE
        )
        mask = np.zeros((rows, columns), np.uint8)
        cv2.fillPoly(mask, [_fixed_point(points)], 1, shift=4)
        self.paint(mask, warped, label_id, (top, left))


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Pixels in sixteenths, OpenCV's coordinates for shift=4."""
    return np.rint(points * 16).astype(np.int32)


def face_normal(corners: np.ndarray) -> np.ndarray:
    """Unit normal of a flat polygon (n, 3), on the side where its corners run clockwise."""
    # Python floats, because numpy is slow on so few numbers.
    first, second, third = np.asarray(corners[:3], float).tolist()
    ax, ay, az = (b - a for a, b in zip(first, second))
    bx, by, bz = (b - a for a, b in zip(first, third))
    normal = np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
    return normal / max(float(np.sqrt(normal @ normal)), 1e-6)


def patch(quad, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """The part (4, 3) of a quad between fractions of its width and height."""
    places = ((left, top), (right, top), (right, bottom), (left, bottom))
    weights = [((1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v) for u, v in places]
    return as_float32(weights) @ quad
