"""The objects of a synthetic street: one draw function each.

Every function paints one object at X, Z (meters, see `canvas`) and draws its form, color and state
from `rng`. The canvas paints image and label together.
"""

from __future__ import annotations

import cv2
import numpy as np

from liteseg.datasets.streets.canvas import Canvas, as_float32, mix, patch

# Cityscapes label ids
EGO, LIGHT, ROAD, SIDEWALK, BUILDING = 1, 19, 7, 8, 11
POLE, SIGN, VEGETATION, SKY, PERSON, CAR = 17, 20, 21, 23, 24, 26

TOWARD_CAMERA = (0.0, 0.35, -0.94)  # mean visible normal of round objects

# Walls, cars and clothes share hues with road, sidewalk, sky and trees: color must not suffice.
WALLS = ("b5b0a6", "8f8d8b", "6e6f72", "a4664f", "c9b48c", "d8d3c8", "8a9a86", "7d8fa3", "7b5c48")
PAINTS = ("1b1c1f", "3a3d42", "8d9094", "c9cbcc", "e8e8e6", "8c1f1f", "24406e", "3f5a3a", "7a6a52")
CLOTHES = ("17181c", "2a2f3d", "3d4046", "6b6f73", "5a4636", "7c2a2a", "2f4a78", "3e5638", "b9b4aa")
LEAVES = ("3f5a2a", "536b33", "2f4426", "6c7438", "7a6a35", "48583f", "5f4a2e")
SKINS = ("e0b394", "c68f6b", "8a5a3c", "5a3a28")
SIGN_COLORS = ("b3202a", "1f4fa0", "d9b020", "e2e2de", "2c7a48", "b3202a", "1f4fa0")


def pick(rng: np.random.Generator, palette: tuple, spread: float = 0.06) -> np.ndarray:
    """A random color of a palette of hex strings, varied by `spread`."""
    color = bytes.fromhex(palette[rng.integers(len(palette))])
    brighter, shift = rng.uniform(0.8, 1.2), rng.normal(0, spread, 3).tolist()
    varied = (c / 255 * brighter + s for c, s in zip(color, shift))
    return as_float32([min(max(c, 0.03), 0.95) for c in varied])


def draw_prism(canvas: Canvas, base, top, color, label_id: int) -> dict[int, np.ndarray]:
    """Paint the visible faces between two rectangles (4, 3), counter-clockwise from above.

    Returns:
        The visible sides as quads, top left corner first: 0 rear, 1 right, 2 front, 3 left.
    """
    corners = np.concatenate([base, top])
    pixels = canvas.camera.project(corners).tolist()
    visible = {}
    for name, quad in enumerate(_PRISM_FACES):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (pixels[corner] for corner in quad)
        if (cx - ax) * (dy - by) > (cy - ay) * (dx - bx):  # clockwise on the screen: visible
            visible[name] = corners[list(quad)]
            canvas.face(visible[name], color, label_id)
    visible.pop(_LID, None)
    return visible


# Corners (0-3 base, 4-7 top) of rear, right, front, left and lid, each from its top left
_PRISM_FACES = ((4, 5, 1, 0), (5, 6, 2, 1), (6, 7, 3, 2), (7, 4, 0, 3), (7, 6, 5, 4))
_LID = 4


def draw_building(canvas: Canvas, rng, wall: float, near: float, far: float, height: float) -> None:
    """A house with its front along the road at X = `wall`, from Z = `near` to `far`."""
    color = pick(rng, WALLS)
    side = np.sign(wall)
    left, right = (near, far) if side < 0 else (far, near)
    corners = [(wall, height, left), (wall, height, right), (wall, 0, right), (wall, 0, left)]
    if canvas.box(canvas.camera.project(corners)) is None:
        return
    pixels_per_meter = canvas.camera.focal / max(0.5 * (near + far), 14.0)
    texture = _facade(canvas, rng, color, far - near, height, pixels_per_meter)
    texture = canvas.light.shade(texture, (-side, 0, 0), 0.5 * (near + far))
    back = wall + side * 12
    if rng.random() < 0.45:
        roof = pick(rng, ("6b3b30", "4a4643", "7a5a48", "5b6066"))
        ridge, top = wall + side * 4, height + rng.uniform(1.5, 3.5)
        slope = [(wall, height, left), (ridge, top, left), (ridge, top, right)]
        canvas.face([*slope, (wall, height, right)], roof, BUILDING, normal=(-side * 0.5, 0.85, 0))
        gable = [(wall, height, near), (ridge, top, near), (back, height, near)]
        canvas.face(gable, color, BUILDING, normal=(0, 0, -1), grain=0.12)
    end = [(wall, 0, near), (wall, height, near), (back, height, near), (back, 0, near)]
    canvas.face(end, color * 0.9, BUILDING, normal=(0, 0, -1), grain=0.12)
    canvas.warp(texture, as_float32(corners), BUILDING)


def _facade(canvas: Canvas, rng, color, width: float, height: float, scale: float) -> np.ndarray:
    """Texture of a front of `width` by `height` meters at `scale` pixels per meter."""
    rows = int(np.clip(height * scale, 8, 0.7 * canvas.label.shape[0]))
    columns = int(np.clip(width * scale, 8, 0.4 * canvas.label.shape[1]))
    grain = canvas.grain(rng.integers(999), rng.integers(999), rows, columns)
    texture = mix((1 + 0.16 * grain, color))

    def block(left: float, right: float, bottom: float, top: float, fill) -> None:
        across, up = columns / width, rows / height
        start = (int(left * across), int(rows - top * up))
        cv2.rectangle(texture, start, (int(right * across), int(rows - bottom * up)), fill, -1)

    glass = pick(rng, ("2a3038", "3b4550", "1c1f24", "6d8296"), 0.03)
    frame = pick(rng, ("e0dcd2", "4a4038", "8a8880", "d6d2c6"), 0.03)
    story, ground = rng.uniform(2.6, 3.4), rng.uniform(3.0, 4.0)
    bay = rng.uniform(1.8, 3.2)
    window_width, window_height = bay * rng.uniform(0.4, 0.7), story * rng.uniform(0.45, 0.65)
    for floor in np.arange(ground, height - story * 0.8, story):
        for start in np.arange((width % bay + bay - window_width) / 2, width - 0.5, bay):
            sill = floor + 0.25 * story
            end, lintel = start + window_width, sill + window_height
            block(start - 0.12, end + 0.12, sill - 0.12, lintel + 0.12, frame.tolist())
            block(start, end, sill, lintel, (glass * rng.uniform(0.6, 1.6)).tolist())
    block(0, width, height - 0.35, height, (color * 0.75).tolist())
    if rng.random() < 0.5:
        block(0, width, ground - 0.7, ground - 0.1, pick(rng, PAINTS).tolist())
    start = rng.uniform(0.3, 1.5)
    while start < width - 1:
        wide, is_door = rng.uniform(1.2, 3.2), rng.random() < 0.35
        end = min(start + (1.1 if is_door else wide), width - 0.2)
        fill = pick(rng, PAINTS) if is_door else glass * rng.uniform(0.6, 1.5)
        block(start, end, 0 if is_door else 0.6, ground - 1.0, fill.tolist())
        start = end + rng.uniform(0.4, 1.4)
    return texture


def draw_skyline(canvas: Canvas, rng, x: float, z: float, width: float, height: float) -> None:
    """A distant house front that faces the camera and closes the street."""
    top = [(x, height, z), (x + width, height, z)]
    corners = as_float32([*top, (x + width, 0, z), (x, 0, z)])
    if canvas.box(canvas.camera.project(corners)) is None:
        return
    color = pick(rng, WALLS)
    texture = _facade(canvas, rng, color, width, height, canvas.camera.focal / z)
    texture = canvas.light.shade(texture, (0, 0, -1), z)
    canvas.warp(texture, corners, BUILDING)


def draw_foliage(canvas: Canvas, rng, x: float, z: float, low: float, high: float, wide: float):
    """A crown, bush or hedge between two heights: clumps of leaves, lighter toward the sun."""
    corners = canvas.camera.project([(x - wide / 2, high, z), (x + wide / 2, low, z)])
    box = canvas.box(corners)
    if box is None:
        return
    size = 64
    form = np.zeros((size, size), np.float32)
    glow = np.full((size, size), 0.45, np.float32)
    light = canvas.light
    clumps = rng.uniform(0.24, 0.76, (12, 2))
    for u, v in clumps[np.argsort(-clumps[:, 1])]:
        center, radius = (int(u * size), int(v * size)), int(rng.uniform(0.13, 0.22) * size)
        bright = 0.95 + 0.5 * (0.5 - v) + 0.5 * (u - 0.5) * light.sun[0]
        cv2.circle(form, center, radius, 1.0, -1)
        cv2.circle(glow, center, radius, bright + rng.uniform(-0.15, 0.15), -1)
    drawn = cv2.GaussianBlur(form, (0, 0), 2), cv2.GaussianBlur(glow, (0, 0), 2.5)
    top, left, rows, columns = box
    scale = size / np.maximum(corners[1] - corners[0], 1)
    offset = (np.array([left, top]) - corners[0]) * scale
    matrix = as_float32([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shape, shade = (cv2.warpAffine(a, matrix, (columns, rows), flags=flags) for a in drawn)
    leaves = canvas.grain(top, left, rows, columns)
    texture = mix((shade * np.maximum(1 + 0.45 * leaves, 0.1), pick(rng, LEAVES, 0.03)))
    texture = light.shade(texture, TOWARD_CAMERA, z)
    mask = (shape + 0.3 * leaves > 0.5).astype(np.uint8)
    canvas.paint(mask, texture, VEGETATION, (top, left))


def draw_tree(canvas: Canvas, rng, x: float, z: float, height: float) -> None:
    """A street tree: trunk and crown, both vegetation."""
    thick, wide = 0.04 * height + 0.05, height * rng.uniform(0.55, 0.85)
    trunk = canvas.camera.project([(x, 0, z), (x + rng.uniform(-0.3, 0.3), 0.6 * height, z)])
    bark = canvas.light.shade(pick(rng, ("4a3b2e", "5b5348", "3a3530")), TOWARD_CAMERA, z)
    canvas.stroke(trunk, canvas.camera.focal / z * thick, bark, VEGETATION)
    draw_foliage(canvas, rng, x, z, 0.28 * height, height, wide)


def _upright(canvas: Canvas, x: float, z: float, top: float, thick: float, color) -> None:
    """A round pole from the ground to `top`, lighter on one side."""
    quad = as_float32([(x, top, z), (x + thick, top, z), (x + thick, 0, z), (x, 0, z)])
    canvas.face(quad, color, POLE, TOWARD_CAMERA)
    canvas.face(patch(quad, 0.15, 0.4, 0, 1), color * 1.35, None, TOWARD_CAMERA)
    canvas.face(patch(quad, 0.75, 1, 0, 1), color * 0.65, None, TOWARD_CAMERA)


def draw_lamp(canvas: Canvas, rng, x: float, z: float) -> None:
    """A street lamp: a tall pole, an arm over the road and a lamp head, all labeled pole."""
    height, thick = rng.uniform(5, 8), rng.uniform(0.28, 0.4)
    color = pick(rng, ("4b4e50", "6f7375", "3a4a3e", "8d8f8c"), 0.03)
    tip = x - np.sign(x) * rng.uniform(1.0, 2.2)
    shaded = canvas.light.shade(color, TOWARD_CAMERA, z)
    arm = canvas.camera.project([(x + thick / 2, height, z), (tip, height + 0.3, z)])
    canvas.stroke(arm, canvas.camera.focal / z * thick * 0.7, shaded, POLE)
    head = [(tip - 0.5, height + 0.45, z), (tip + 0.5, height + 0.45, z)]
    head += [(tip + 0.5, height + 0.1, z), (tip - 0.5, height + 0.1, z)]
    canvas.face(head, color * 1.2, POLE, TOWARD_CAMERA)
    _upright(canvas, x, z, height, thick, color)


def draw_traffic_light(canvas: Canvas, rng, x: float, z: float) -> None:
    """A traffic light on a pole; Streets has no class for it."""
    _upright(canvas, x, z, 3.0, 0.28, pick(rng, ("55585a", "7d7f80", "46493f"), 0.03))
    middle, lit = x + 0.14, rng.integers(3)
    left, right = middle - 0.3, middle + 0.3
    case = as_float32([(left, 3.6, z), (right, 3.6, z), (right, 2.2, z), (left, 2.2, z)])
    canvas.face(case, (0.06, 0.07, 0.07), LIGHT, TOWARD_CAMERA)
    lamps = ((1.0, 0.25, 0.15), (1.0, 0.75, 0.2), (0.3, 1.0, 0.6))
    for i, lamp in enumerate(lamps):
        fill = np.array(lamp) * (1.0 if i == lit else 0.15)
        center = canvas.camera.project([(middle, 3.37 - 0.46 * i, z)])
        canvas.stroke(np.repeat(center, 2, 0), canvas.camera.focal / z * 0.3, fill)


def draw_sign(canvas: Canvas, rng, x: float, z: float) -> None:
    """A traffic sign with 3, 4, 8 or 24 (round) corners, on its pole."""
    radius, thick = rng.uniform(0.55, 0.8), rng.uniform(0.22, 0.32)
    height = rng.uniform(2.4, 3.0)
    _upright(
        canvas, x - thick / 2, z, height, thick, pick(rng, ("6f7375", "8d8f8c", "55585a"), 0.03)
    )
    corners = rng.choice([3, 4, 8, 24])
    turn = {3: np.pi / 2, 4: np.pi / 4, 8: np.pi / 8, 24: 0.0}[corners]
    turn += np.pi * (corners == 3) * rng.integers(2)
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    outline = np.stack([np.cos(angles), np.sin(angles), np.zeros(corners)], axis=1) * radius
    center = np.array([x, height, z])
    rim = pick(rng, SIGN_COLORS, 0.04)
    field = pick(rng, SIGN_COLORS, 0.04)
    canvas.face(center + outline, rim, SIGN, TOWARD_CAMERA)
    canvas.face(center + outline * 0.72, field, None, TOWARD_CAMERA)
    glyph = as_float32([(-0.1, 0.35, 0), (0.1, 0.35, 0), (0.1, -0.35, 0), (-0.1, -0.35, 0)])
    spin = rng.uniform(0, np.pi)
    turned = np.array(
        [[np.cos(spin), -np.sin(spin), 0], [np.sin(spin), np.cos(spin), 0], [0, 0, 1]]
    )
    canvas.face(center + glyph @ turned * radius * 1.4, 1.0 - field, None, TOWARD_CAMERA)


def draw_person(canvas: Canvas, rng, x: float, z: float) -> None:
    """A person who stands or walks: legs, coat, arms, head, sometimes a bag."""
    tall, stout = rng.uniform(1.55, 1.95), rng.uniform(0.9, 1.3)
    pixels = canvas.camera.focal / z

    def limb(path, width: float, color) -> None:
        points = canvas.camera.project([(x + across, up * tall, z) for across, up in path])
        shaded = canvas.light.shade(color, TOWARD_CAMERA, z)
        canvas.stroke(points, pixels * width * stout, shaded, PERSON)

    trousers, coat = pick(rng, CLOTHES), pick(rng, CLOTHES)
    skin, hair = pick(rng, SKINS, 0.02), pick(rng, ("15120f", "3a281a", "8a6a3c", "777370"), 0.02)
    stride = rng.uniform(0.04, 0.3)
    for side in (-1, 1):
        limb(
            [(0.07 * side, 0.48), (stride * side * 0.6, 0.25), (stride * side, 0.03)],
            0.17,
            trousers,
        )
        limb([(stride * side - 0.05, 0.02), (stride * side + 0.08, 0.02)], 0.1, hair)
    limb([(0, 0.48), (0, rng.uniform(0.5, 0.55)), (0, 0.76)], 0.4, coat)
    for side in (-1, 1):
        swing = side * rng.uniform(0.2, 0.34)
        limb([(0.2 * side, 0.78), (swing, 0.62), (swing * 1.1, 0.48)], 0.13, coat * 0.85)
        limb([(swing * 1.1, 0.46), (swing * 1.1, 0.45)], 0.1, skin)
    if rng.random() < 0.3:
        limb([(0.3, 0.45), (0.3, 0.4)], 0.26, pick(rng, PAINTS))
    limb([(0, 0.86), (0, 0.9)], 0.12, skin)
    limb([(0, 0.92), (0, 0.94)], 0.2, skin)
    limb([(-0.02, 0.955), (0.02, 0.96)], 0.2, hair)


# length, width, shoulder and roof height (m); rear and front end of the cabin at the shoulder and
# at the roof, as fractions of the half length
CARS = {
    "sedan": (4.6, 1.85, 0.92, 1.48, (-0.7, 0.45), (-0.42, 0.12)),
    "hatchback": (4.0, 1.8, 0.95, 1.55, (-0.97, 0.5), (-0.75, 0.15)),
    "wagon": (4.7, 1.9, 1.0, 1.65, (-0.98, 0.45), (-0.88, 0.15)),
    "van": (5.0, 2.0, 1.15, 2.1, (-0.99, 0.75), (-0.97, 0.45)),
}
RUBBER, HUB = as_float32([0.05, 0.05, 0.055]), as_float32([0.45, 0.46, 0.47])


def draw_car(canvas: Canvas, rng, x: float, z: float, yaw: float) -> None:
    """A car; yaw 0 drives away from the camera, pi toward it (radians)."""
    length, width, shoulder, roof, cabin, top = CARS[list(CARS)[rng.integers(len(CARS))]]
    cos, sin = np.cos(yaw), np.sin(yaw)

    def place(points) -> np.ndarray:
        """World coordinates of points (right, up, ahead) of the car's center."""
        right, up, ahead = np.asarray(points, np.float32).T
        return np.stack([x + cos * right + sin * ahead, up, z - sin * right + cos * ahead], axis=1)

    def slab(half_width: float, up: float, rear: float, front: float) -> np.ndarray:
        ends = ((-1, rear), (1, rear), (1, front), (-1, front))
        return place([(s * half_width, up, end * length / 2) for s, end in ends])

    half, paint = width / 2, pick(rng, PAINTS)
    draw_prism(canvas, slab(half - 0.1, 0, -0.9, 0.9), slab(half, 0.35, -0.95, 0.95), RUBBER, CAR)
    low, high = slab(half, 0.25, -1, 1), slab(half - 0.04, shoulder, -0.98, 0.96)
    body = draw_prism(canvas, low, high, paint, CAR)
    if z < 25:  # farther away, trim is smaller than a pixel
        _draw_trim(canvas, body, paint)
    angles = np.linspace(0, 2 * np.pi, 16)
    disc = np.stack([0 * angles, np.sin(angles), np.cos(angles)], axis=1)
    for side, out in ((1, half), (3, -half)):
        for ahead in (-0.3 * length, 0.3 * length) if side in body else ():
            canvas.face(place(0.36 * disc + (out, 0.34, ahead)), RUBBER, CAR, TOWARD_CAMERA)
            canvas.face(place(0.2 * disc + (out, 0.34, ahead)), HUB, CAR, TOWARD_CAMERA)
    low, high = slab(half - 0.05, shoulder, *cabin), slab(half - 0.25, roof, *top)
    glass = pick(rng, ("1d2329", "2c353d", "566675"), 0.02)
    for quad in draw_prism(canvas, low, high, paint, CAR).values():
        canvas.face(patch(quad, 0.06, 0.94, 0.12, 0.92), glass, None, TOWARD_CAMERA)
        shine = patch(quad, 0.2, rng.uniform(0.3, 0.6), 0.15, 0.5)
        canvas.face(shine, canvas.light.haze, None, TOWARD_CAMERA, alpha=0.3)


def _draw_trim(canvas: Canvas, body: dict[int, np.ndarray], paint) -> None:
    """Lights, bumper and license plate at the ends of a car, door seams on its sides."""
    for side, quad in body.items():
        if side in (1, 3):
            for seam in (0.35, 0.6):
                canvas.face(patch(quad, seam, seam + 0.012, 0.05, 0.8), paint * 0.4)
            continue
        lamp = (0.75, 0.06, 0.05) if side == 0 else (0.9, 0.9, 0.8)
        canvas.face(patch(quad, 0, 1, 0.68, 0.95), paint * 0.5, None, TOWARD_CAMERA)
        for start in (0.03, 0.77):
            canvas.face(patch(quad, start, start + 0.2, 0.12, 0.4), lamp, None, TOWARD_CAMERA)
        canvas.face(patch(quad, 0.36, 0.64, 0.5, 0.68), (0.85, 0.85, 0.8), None, TOWARD_CAMERA)
