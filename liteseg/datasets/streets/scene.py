"""One synthetic street scene: layout, light, and the objects drawn from far to near."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, NamedTuple

import cv2
import numpy as np

from liteseg.datasets.streets import objects
from liteseg.datasets.streets.canvas import Camera, Canvas, Light, as_float32, mix

PARKING = 2.2  # width in meters of the strip of parked cars at each curb


@dataclass(frozen=True)
class Street:
    """Meters: `road` between the curbs, `walk` of each sidewalk, `end` the length of the street."""

    road: float
    walk: float
    end: float


class SceneObject(NamedTuple):
    """An object of the street: when, how and where to draw it, and its shadow.

    Objects are drawn from the greatest `depth` to the least, by `draw(canvas, rng, *place)`.
    `depth` is a Z such that this object can't hide one of less depth: the far end of a house, since
    all others are on the street side of it, and the near end of a car, which hides objects on the
    sidewalk next to it. The shadow is that of `footprint`, (n, 2) X, Z on the ground, raised to
    `height` meters.
    """

    depth: float
    draw: Callable[..., None]
    place: tuple
    footprint: np.ndarray
    height: float


def render(width: int, height: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene.

    Returns:
        The image (height, width, 3) uint8 RGB, and its Cityscapes label ids (height, width) uint8.
    """
    street = Street(rng.uniform(8, 12), rng.uniform(3.5, 6.0), rng.uniform(80, 130))
    camera = _camera(width, height, street, rng)
    canvas = Canvas(camera, _light(rng), rng)
    _draw_sky(canvas, rng)
    _draw_ground(canvas, rng, street)
    plan = sorted(_plan(street, rng), key=lambda item: -item.depth)
    _draw_shadows(canvas, plan)
    for item, seed in zip(plan, rng.integers(2**32, size=len(plan))):
        # A generator for each: the draws of one object never change the others, at any size
        item.draw(canvas, np.random.default_rng(seed), *item.place)
    if rng.random() < 0.5:
        _draw_hood(canvas, rng)
    return _photograph(canvas.image, rng), canvas.label


def _camera(width: int, height: int, street: Street, rng: np.random.Generator) -> Camera:
    return Camera(
        width=width,
        height=height,
        focal=width * rng.uniform(0.75, 0.95),
        horizon=height * rng.uniform(0.4, 0.54),
        center=width * rng.uniform(0.38, 0.62),
        x=street.road * rng.uniform(0.05, 0.22),
        eye=rng.uniform(1.3, 1.8),
        bend=rng.normal(0, 0.0025),
    )


def _light(rng: np.random.Generator) -> Light:
    """Light at noon, under clouds, in the evening or at dusk, with the sun in any direction."""
    elevation, sun_color, ambient, haze = (
        (0.95, (0.62, 0.6, 0.55), (0.55, 0.57, 0.62), (0.72, 0.78, 0.85)),
        (0.8, (0.12, 0.12, 0.12), (0.8, 0.82, 0.84), (0.74, 0.75, 0.77)),
        (0.4, (0.8, 0.58, 0.36), (0.46, 0.46, 0.54), (0.82, 0.7, 0.6)),
        (0.6, (0.12, 0.1, 0.1), (0.56, 0.58, 0.68), (0.52, 0.54, 0.64)),
    )[rng.choice(4, p=(0.4, 0.25, 0.2, 0.15))]
    azimuth = rng.uniform(0, 2 * math.pi)
    flat = math.cos(elevation)
    return Light(
        sun=(flat * math.cos(azimuth), math.sin(elevation), flat * math.sin(azimuth)),
        sun_color=as_float32(sun_color),
        ambient=as_float32(ambient) * np.float32(rng.uniform(0.9, 1.1)),
        haze=as_float32(haze),
        visibility=float(rng.uniform(90, 350)),
    )


def _draw_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Haze at the horizon, deeper blue above, clouds, a glow around the sun."""
    height, width = canvas.camera.ground()[0], canvas.camera.width
    light = canvas.light
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None] ** 0.7
    blue = as_float32([0.35, 0.55, 0.85]) * light.ambient.mean() * 1.7
    zenith = blue + rng.uniform(0, 1) * (light.haze - blue)
    cover, bright = rng.uniform(-0.3, 0.6), rng.uniform(0.7, 1.15)
    soft = cv2.GaussianBlur(canvas.noise[:height], (0, 0), height / 30)
    clouds = np.clip(soft * 2.5 + cover, 0, 0.8)
    sun_column = (light.sun[0] / max(abs(light.sun[2]), 0.2) + 0.5) * width
    away = np.abs(np.arange(width, dtype=np.float32)[None] - sun_column) / width
    glow = 0.5 * np.exp(-4 * away) * (light.sun[2] > 0) * np.ones_like(up)
    sky = mix(
        ((1 - clouds) * (1 - up), light.haze),
        ((1 - clouds) * up, zenith),
        (clouds, bright * light.haze),
        (glow, light.sun_color),
    )
    canvas.paint(np.ones((height, width), np.uint8), sky, objects.SKY)


def _draw_ground(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Road with repairs, wheel tracks and markings, gutter and curb, and the sidewalks."""
    top, x, z = canvas.camera.ground()
    beyond = np.abs(x) - street.road / 2  # meters beyond the curb, negative on the road
    fade = np.exp(-z / 30)  # distance averages the texture out

    def texture(meters: float) -> np.ndarray:
        scale = canvas.noise.shape[0] / meters
        z_map = np.broadcast_to(z * scale, x.shape).astype(np.float32)
        border = cv2.BORDER_REFLECT
        return cv2.remap(canvas.noise, x * scale, z_map, cv2.INTER_LINEAR, borderMode=border)

    coarse, fine = texture(40.0), texture(9.0)
    tar = objects.pick(rng, ("5a5b5e", "77777a", "4a4a4d", "86827b"), 0.02)
    road = 1 + 0.1 * coarse + 0.16 * fine * fade
    road -= 0.12 * (coarse > rng.uniform(0.3, 0.8))  # repairs
    from_lane = np.abs(np.abs(x) - street.road / 6)
    road -= 0.1 * np.exp(-((from_lane - 0.75) ** 2) / 0.1)  # wheel tracks
    road -= 0.25 * (beyond > -0.35)  # gutter
    paint = _markings(rng, street, x, z, beyond) * np.clip(0.75 + 0.7 * fine, 0, 1)

    stone = objects.pick(rng, ("8f8d88", "a39a8c", "6f6f70", "9a857a"), 0.03)
    slab = rng.uniform(0.5, 1.2)
    joint = ((beyond % slab) < 0.06) | ((z % slab) < 0.06)
    sidewalk = 1 + 0.12 * coarse + 0.2 * fine * fade
    sidewalk -= joint * np.clip(0.4 * fade - 0.08, 0, 0.25)
    sidewalk += 0.3 * (beyond < 0.2)  # curb

    on_road = beyond < 0
    clear = np.broadcast_to(np.exp(-z / canvas.light.visibility), x.shape)
    surfaces = tar, as_float32([0.8, 0.8, 0.76]), stone
    tar, white, stone = (canvas.light.shade(color, (0, 1, 0), 0) for color in surfaces)
    ground = mix(
        (clear * on_road * (1 - paint) * road, tar),
        (clear * on_road * paint, white),
        (clear * ~on_road * sidewalk, stone),
        (1 - clear, canvas.light.haze),
    )
    labels = np.where(on_road, objects.ROAD, objects.SIDEWALK)
    canvas.paint(np.ones(x.shape, np.uint8), ground, labels, (top, 0))


def _markings(rng: np.random.Generator, street: Street, x, z, beyond) -> np.ndarray:
    """Road paint (0 or 1) at X, Z: center line, parking line, a crossing."""
    paint = np.abs(x) < 0.09
    if rng.random() < 0.7:
        paint = paint & ((z + rng.uniform(0, 9)) % 9 < rng.uniform(3, 6))
    if rng.random() < 0.6:
        paint = paint | (np.abs(beyond + PARKING) < 0.07)
    if rng.random() < 0.5:
        start, period = rng.uniform(7, 25), rng.uniform(0.9, 1.3)
        on_crossing = (z > start) & (z < start + 3.5) & (beyond < -0.3)
        paint = paint | (on_crossing & (x % period < period / 2))
    return paint.astype(np.float32)


def _draw_shadows(canvas: Canvas, plan: list[SceneObject]) -> None:
    """Shadows cast by the sun, and soft ones under every object."""
    sun = canvas.light.sun
    cast = -np.array([sun[0], sun[2]]) / max(sun[1], 0.25)
    strength = float(canvas.light.sun_color.max())
    shade = np.zeros(canvas.label.shape, np.uint8)  # 255 is darkest
    for item in plan:
        tip = item.footprint + cast * item.height
        outline = cv2.convexHull(np.concatenate([item.footprint, tip]).astype(np.float32))[:, 0]
        _darken(shade, canvas.camera, outline, int(150 * strength))
    for item in plan:
        _darken(shade, canvas.camera, item.footprint, 150)
    top = canvas.camera.ground()[0]
    soft = cv2.GaussianBlur(shade[top:], (0, 0), canvas.camera.width / 500)
    canvas.image[top:] *= mix((1 - soft / np.float32(255), (1, 1, 1)))


def _darken(shade: np.ndarray, camera: Camera, outline: np.ndarray, dark: int) -> None:
    """Fill an outline (n, 2) of X, Z on the ground; points behind the camera are moved ahead."""
    x, z = outline.T
    if z.max() > 2.5:
        points = camera.project(np.stack([x, 0 * x, np.maximum(z, 2.5)], axis=1))
        cv2.fillPoly(shade, [np.rint(points * 16).astype(np.int32)], dark, shift=4)


def _plan(street: Street, rng: np.random.Generator) -> Iterator[SceneObject]:
    """All objects of the street."""
    yield from _closure(street, rng)
    for side in (-1, 1):
        yield from _frontage(street, side, rng)
        yield from _sidewalk(street, side, rng)
        yield from _traffic(street, side, rng)
    for _ in range(rng.integers(1, 4)):  # people on the road
        x, z = rng.uniform(-0.45, 0.45) * street.road, rng.uniform(7, 16)
        yield _upright(objects.draw_person, x, z, 1.7, 0.3)


def _upright(
    draw: Callable, x: float, z: float, height: float, radius: float, *more
) -> SceneObject:
    """An object with a round footprint."""
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    footprint = as_float32([x, z]) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return SceneObject(z, draw, (x, z, *more), footprint, height)


def _closure(street: Street, rng: np.random.Generator) -> Iterator[SceneObject]:
    """Houses and trees across the far end of the street, to both edges of the view."""
    for row in (1.5, 1.15):
        x, z = -150.0, street.end * row
        while x < 150:
            width = rng.uniform(15, 35)
            if rng.random() < 0.6:
                place = (x, z, width, rng.uniform(5, 15))
                footprint = as_float32([[x, z], [x + width, z], [x, z]])
                yield SceneObject(z, objects.draw_skyline, place, footprint, 0.0)
            else:
                crown = (0.0, rng.uniform(5, 10), 1.5 * width)
                yield _upright(objects.draw_foliage, x + width / 2, z, 0.0, 1.0, *crown)
            x += width


def _frontage(street: Street, side: int, rng: np.random.Generator) -> Iterator[SceneObject]:
    """Houses along one side, with gaps of trees and hedges between them."""
    wall = side * (street.road / 2 + street.walk + rng.uniform(0, 1.5))
    z, usual = rng.uniform(2, 8), rng.uniform(5, 12)
    while z < street.end:
        length = rng.uniform(8, 18)
        if rng.random() < 0.25:
            for depth in np.arange(z, z + length, 5.0).tolist():
                away = wall + side * rng.uniform(1, 3)
                size = (0.0, rng.uniform(1.5, 4.5), rng.uniform(5, 8))
                yield _upright(objects.draw_foliage, away, depth, size[1], 1.5, *size)
        else:
            height = usual * rng.uniform(0.7, 1.4)
            back = wall + side * 10
            footprint = as_float32([[wall, z], [back, z], [back, z + length], [wall, z + length]])
            place = (wall, z, z + length, height)
            yield SceneObject(z + length, objects.draw_building, place, footprint, height)
        z += length


def _sidewalk(street: Street, side: int, rng: np.random.Generator) -> Iterator[SceneObject]:
    """One sidewalk: trees, lamps, signs and a signal along the curb, and people."""
    curb = side * (street.road / 2 + 0.5)
    z = rng.uniform(7, 11)
    sequence = rng.permutation(["sign", "tree", "lamp", "sign", "light", "lamp"])
    for kind in sequence:
        if kind == "tree":
            height = rng.uniform(4.5, 8)
            yield _upright(objects.draw_tree, curb, z, height, 0.25 * height, height)
        elif kind == "lamp":
            yield _upright(objects.draw_lamp, curb, z, 6.5, 0.12)
        elif kind == "sign":
            yield _upright(objects.draw_sign, curb, z, 2.8, 0.3)
        else:
            yield _upright(objects.draw_traffic_light, curb, z, 3.5, 0.2)
        z += rng.uniform(2.5, 5.5)
    for _ in range(rng.integers(3, 7)):
        x = side * (street.road / 2 + rng.uniform(0.8, street.walk - 0.3))
        yield _upright(objects.draw_person, x, rng.uniform(5.5, 16), 1.7, 0.3)


def _traffic(street: Street, side: int, rng: np.random.Generator) -> Iterator[SceneObject]:
    """Parked cars along one curb, and cars that drive on this side (right-hand traffic)."""
    heading = 0.0 if side > 0 else np.pi
    z = rng.uniform(7, 16)
    while z < 50:
        turned = np.pi * rng.integers(2) + rng.normal(0, 0.04)
        yield _car(side * (street.road / 2 - 1.1), z, turned)
        z += rng.uniform(5.5, 26)
    z = rng.uniform(10, 30)
    while z < 60:
        yield _car(side * street.road * 0.14, z, heading + rng.normal(0, 0.08))
        z += rng.uniform(9, 40)


def _car(x: float, z: float, yaw: float) -> SceneObject:
    footprint = as_float32([[x - 1, z - 2.2], [x + 1, z - 2.2], [x + 1, z + 2.2], [x - 1, z + 2.2]])
    return SceneObject(z - 2.2, objects.draw_car, (x, z, yaw), footprint, 1.3)


def _draw_hood(canvas: Canvas, rng: np.random.Generator) -> None:
    """The hood of the ego vehicle at the lower edge of the image."""
    height, width = canvas.label.shape
    across = np.linspace(-0.1, 1.1, 25)
    rise = height * rng.uniform(0.04, 0.09) * (1 - (2 * across - 1) ** 4 * 0.6)
    curve = np.stack([across * width, height - rise], axis=1)
    outline = np.concatenate([curve, [[1.1 * width, height + 9], [-0.1 * width, height + 9]]])
    paint = objects.pick(rng, objects.PAINTS) * canvas.light.ambient
    canvas.polygon(outline, paint, objects.EGO, grain=0.05)
    lower_edge = np.add(curve, (0, 0.15 * rise.max()))[::-1]
    canvas.polygon(np.concatenate([curve, lower_edge]), paint * 1.6)


def _photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image of the sensor: slight blur, vignette, exposure, color cast, noise."""
    height, width = image.shape[:2]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.45, 0.8) * math.sqrt(width / 512))
    row = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    column = np.linspace(-1, 1, width, dtype=np.float32)[None]
    vignette = 1 - rng.uniform(0, 0.2) * (row**2 + column**2)
    image = image * mix((vignette, 255 * rng.uniform(0.8, 1.2) * rng.normal(1, 0.05, 3)))
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    grain *= rng.uniform(1.3, 8)
    return np.clip(image + grain, 0, 255).astype(np.uint8)
