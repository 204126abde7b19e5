"""Parsers of annotation formats: each yields `Annotated` images of a file or folder.

A parser raises UserError with the file, and the entry in it, that is not as the format defines.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Optional
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

from liteseg.datasets.annotations.files import (
    BAD,
    Entries,
    bytes_of,
    existing,
    find_image,
    json_of,
    text_of,
    upright_size,
)
from liteseg.datasets.annotations.shapes import (
    Annotated,
    Painter,
    Shape,
    bitmap,
    ellipse,
    points_of,
    polygon,
    rectangle,
)
from liteseg.errors import UserError, quoted

_SUBSETS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read(source: Path, kind: str, images: Optional[Path] = None) -> list[Annotated]:
    """The annotated images of a source, sorted by name.

    Args:
        source: a file or folder.
        kind: a key of `PARSERS`.
        images: folder of the images, where they are not next to the annotations.

    Raises:
        UserError: not of that format, an entry is damaged, or an image is missing.
    """
    found = sorted(PARSERS[kind](source, images), key=lambda annotated: annotated.name)
    if not found:
        raise UserError(f"{source}: no annotated image in the format {kind}")
    for one, other in zip(found, found[1:]):
        if one.name == other.name:
            raise UserError(f"{source}: {one.name} is annotated twice; keep one of the files")
    return found


def detect(source: Path) -> str:
    """The format of a source.

    Raises:
        UserError: none of the known ones.
    """
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    suffixes = {path.suffix.lower() for path in files}
    if any(path.parent.name == "SegmentationClass" for path in files):
        return "voc"
    if ".xml" in suffixes:
        return "cvat"
    for path in (p for p in files if p.suffix.lower() == ".json"):
        content = json_of(path)
        if isinstance(content, dict) and "shapes" in content:
            return "labelme"
        if isinstance(content, dict) and "annotations" in content:
            return "coco"
    if ".txt" in suffixes and any(path.parent.parts.count("labels") for path in files):
        return "yolo"
    raise UserError(f"{source}: not in a known format; give one: --format {'|'.join(PARSERS)}")


def _labelme(source: Path, images: Optional[Path]) -> Iterator[Annotated]:
    """One JSON file per image, with `shapes` in drawing order."""
    for path in [source] if source.is_file() else sorted(source.rglob("*.json")):
        content = json_of(path)
        if not isinstance(content, dict) or "shapes" not in content:
            raise UserError(f"{path}: not a file of labelme: `shapes` is missing")
        with Entries(path) as entry:
            named = str(content.get("imagePath") or path.with_suffix(".jpg").name)
            named = named.replace("\\", "/")
            folders = [path.parent, *([images] if images else [])]
            image = existing([f / name for f in folders for name in (named, Path(named).name)])
            if image is None:
                raise ValueError(f"its image {named} is missing; give its folder with --images")
            sides: list[Any] = [content.get("imageWidth"), content.get("imageHeight")]
            size = None if None in sides else (int(sides[0]), int(sides[1]))
            shapes = []
            for index, item in enumerate(content["shapes"]):
                entry.place = f"shapes[{index}]"
                shapes.append(Shape(str(item["label"]), _labelme_shape(item)))
        root = source.parent if source.is_file() else source
        name = path.relative_to(root).with_suffix("").as_posix()
        yield Annotated(image, name, size, shapes)


def _labelme_shape(item: Mapping) -> Painter:
    kind = item.get("shape_type") or "polygon"
    if kind == "polygon":
        return polygon(points_of(item["points"], 3))
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(f"a {kind} has no area; remove it, or draw a polygon")
    first, second = points_of(item["points"], 2)[:2]
    if kind == "rectangle":
        return rectangle([first, second])
    if kind == "circle":
        radius = float(np.hypot(first[0] - second[0], first[1] - second[1]))
        return ellipse(first, radius, radius)
    with Image.open(io.BytesIO(base64.b64decode(item["mask"]))) as image:
        mask = np.asarray(image.convert("L")) > 0 if image.mode != "1" else np.asarray(image)
    return bitmap(mask, int(first[0]), int(first[1]))


def _coco(source: Path, images: Optional[Path]) -> Iterator[Annotated]:
    """JSON files with `images`, `annotations` and `categories`; drawn in the order of the file."""
    files = [source] if source.is_file() else sorted(source.rglob("*.json"))
    for path in files:
        content = json_of(path)
        if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
            raise UserError(f"{path}: not a file of COCO: `images` or `annotations` is missing")
        subset = _subset_in(path.stem) if len(files) > 1 else None
        with Entries(path) as entry:
            names = {item["id"]: str(item["name"]) for item in content["categories"]}
            shapes: dict[Any, list] = defaultdict(list)
            sizes = {i["id"]: (int(i["width"]), int(i["height"])) for i in content["images"]}
            for index, item in enumerate(content["annotations"]):
                entry.place = f"annotations[{index}]"
                paint = _coco_painter(item["segmentation"], sizes[item["image_id"]])
                shapes[item["image_id"]].append(Shape(names[item["category_id"]], paint))
            for index, item in enumerate(content["images"]):
                entry.place = f"images[{index}]"
                named = Path(str(item["file_name"]).replace("\\", "/"))
                image = find_image(named, [images] if images else [path.parent, source])
                name = named.with_suffix("").as_posix()
                yield Annotated(image, name, sizes[item["id"]], shapes[item["id"]], subset)


def _coco_painter(segmentation: Any, size: tuple[int, int]) -> Painter:
    """The pixels of polygons or of an RLE, by the tools of COCO; decoded when drawn."""
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise UserError("COCO masks need pycocotools: pip install 'liteseg[data]'") from None
    width, height = size
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"RLE of {segmentation['size']}, expected {[height, width]}")
        counts = segmentation["counts"]
        if isinstance(counts, list) and sum(counts) != width * height:
            raise ValueError(f"RLE of {sum(counts)} pixels, expected {width * height}")
        rle = (
            coco.frPyObjects(segmentation, height, width)
            if isinstance(counts, list)
            else segmentation
        )
    else:
        polygons = [np.ravel(points_of(part, 3)).tolist() for part in segmentation]
        if not polygons:
            raise ValueError("no polygon; a box alone is no outline")
        rle = coco.merge(coco.frPyObjects(polygons, height, width))
    return lambda image, value: bitmap(coco.decode(rle).astype(bool))(image, value)


def _cvat(source: Path, images: Optional[Path]) -> Iterator[Annotated]:
    """ "CVAT for images" XML, drawn by `z_order`."""
    for path in [source] if source.is_file() else sorted(source.rglob("*.xml")):
        text = bytes_of(path)
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text or b"\0" in text:
            raise UserError(
                f"{path}: XML with a document type or entities, which CVAT never writes"
            )
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise UserError(f"{path}: not XML: {error}") from None
        if root.tag != "annotations":
            raise UserError(f"{path}: <{root.tag}>, expected <annotations> (CVAT for images)")
        with Entries(path) as entry:
            for element in root.iter("image"):
                named = Path(element.attrib["name"])
                entry.place = f"image {named}"
                drawn = [
                    child for child in element if "label" in child.attrib and child.tag != "tag"
                ]
                drawn.sort(key=lambda child: int(child.get("z_order", 0)))
                shapes = [Shape(child.attrib["label"], _cvat_shape(child)) for child in drawn]
                image = find_image(named, [images] if images else [path.parent])
                size = (int(element.attrib["width"]), int(element.attrib["height"]))
                subset = _SUBSETS.get(element.get("subset", "").lower())
                yield Annotated(image, named.with_suffix("").as_posix(), size, shapes, subset)


def _cvat_shape(element: ElementTree.Element) -> Painter:
    def number(name: str) -> float:
        return float(element.attrib[name])

    if element.tag == "polygon":
        pairs = [pair.split(",") for pair in element.attrib["points"].split(";")]
        return polygon(points_of(pairs, 3))
    if element.tag == "box":
        corners = [(number("xtl"), number("ytl")), (number("xbr"), number("ybr"))]
        return rectangle(points_of(corners, 2))
    if element.tag == "ellipse":
        (center,) = points_of([(number("cx"), number("cy"))], 1)
        return ellipse(center, number("rx"), number("ry"))
    if element.tag == "mask":
        counts = [int(count) for count in element.attrib["rle"].split(",")]
        width, height = int(number("width")), int(number("height"))
        if min(counts) < 0 or sum(counts) != width * height:
            raise ValueError(f"rle of {sum(counts)} pixels, expected {width}x{height}")
        values = np.arange(len(counts)) % 2 == 1  # the first count is of background
        mask = np.repeat(values, counts).reshape(height, width)
        return bitmap(mask, int(number("left")), int(number("top")))
    raise ValueError(f"a {element.tag} has no area; remove it, or draw a polygon")


def _voc(source: Path, images: Optional[Path]) -> Iterator[Annotated]:
    """`SegmentationClass/*.png` by color, with the names of `labelmap.txt`, or class numbers."""
    root = next((p.parent for p in sorted(source.rglob("SegmentationClass"))), source)
    colors = _labelmap(root / "labelmap.txt")
    subset_of = {
        name.strip(): _SUBSETS[path.stem]
        for path in sorted((root / "ImageSets/Segmentation").glob("*.txt"))
        if path.stem in _SUBSETS
        for name in text_of(path).splitlines()
    }
    for path in sorted((root / "SegmentationClass").rglob("*.png")):
        name = path.relative_to(root / "SegmentationClass").with_suffix("")
        image = find_image(name, [images] if images else [root / "JPEGImages", root])
        codes = _voc_codes(path, bool(colors))
        shapes = []
        for code in np.unique(codes).tolist():
            label = colors.get(code) if colors else _voc_name(code)
            if label is None:
                value = f"{code >> 16} {code >> 8 & 255} {code & 255}"
                raise UserError(f"{path}: color {value} is not in {root / 'labelmap.txt'}; add it")
            shapes.append(Shape(label, _voc_painter(path, bool(colors), code)))
        size = codes.shape[1], codes.shape[0]
        yield Annotated(image, name.as_posix(), size, shapes, subset_of.get(name.as_posix()))


@functools.lru_cache(maxsize=2)  # all classes of an image are drawn in turn
def _voc_codes(path: Path, colored: bool) -> np.ndarray:
    """(h, w) int32: red << 16 | green << 8 | blue of a mask in colors, else its class numbers."""
    with Entries(path), Image.open(path) as mask:
        if colored:
            return np.asarray(mask.convert("RGB")).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1])
        if mask.mode not in ("P", "L"):
            raise ValueError(f"a mask in {mask.mode} colors needs a labelmap.txt")
        return np.asarray(mask).astype(np.int32)
    raise AssertionError  # Entries has raised


def _voc_painter(path: Path, colored: bool, code: int) -> Painter:
    return lambda image, value: bitmap(_voc_codes(path, colored) == code)(image, value)


_VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)


def _voc_name(value: int) -> str:
    if value == 255:
        return "ignore"
    return _VOC_CLASSES[value] if value < len(_VOC_CLASSES) else f"class_{value}"


def _labelmap(path: Path) -> dict[int, str]:
    """{red << 16 | green << 8 | blue: name} of lines `name:red,green,blue:parts:actions`."""
    colors: dict[int, str] = {}
    for number, line in enumerate(text_of(path).splitlines() if path.is_file() else (), 1):
        if line.strip() and not line.startswith("#"):
            try:
                name, color = line.split(":")[:2]
                red, green, blue = (int(value) for value in color.split(","))
            except ValueError:
                raise UserError(f"{path}:{number}: expected `name:red,green,blue::`") from None
            colors[red << 16 | green << 8 | blue] = name.strip()
    return colors


def _yolo(source: Path, images: Optional[Path]) -> Iterator[Annotated]:
    """`labels/**.txt` of outlines `class x y x y ...` as shares of the image, drawn in order."""
    names = _yolo_names(source)
    for path in sorted(p for p in source.rglob("*.txt") if "labels" in p.relative_to(source).parts):
        parts = list(path.relative_to(source).with_suffix("").parts)
        place = parts.index("labels")
        named = Path(*parts[:place], "images", *parts[place + 1 :])
        bare = Path(*parts[:place], *parts[place + 1 :])
        image = find_image(bare if images else named, [images or source])
        subset = next((_SUBSETS[part.lower()] for part in parts if part.lower() in _SUBSETS), None)
        shapes = []
        with Entries(path) as entry, Image.open(image) as opened:
            size = upright_size(opened)
            for number, line in enumerate(text_of(path).splitlines(), 1):
                entry.place = f"line {number}"
                if words := line.split():
                    if len(words) == 5:
                        raise ValueError("a box, not an outline; export segmentation labels")
                    points = np.array(points_of(words[1:], 3)) * size
                    label = names.get(int(words[0]), f"class_{int(words[0])}")
                    shapes.append(Shape(label, polygon([(x, y) for x, y in points.tolist()])))
        yield Annotated(image, bare.as_posix(), size, shapes, subset)


def _yolo_names(source: Path) -> dict[int, str]:
    for path in sorted([*source.glob("*.yaml"), *source.glob("*.yml")]):
        try:
            names = (yaml.safe_load(text_of(path)) or {}).get("names", {})
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            return {int(number): str(name) for number, name in pairs}
        except (*BAD, yaml.YAMLError, RecursionError) as error:
            raise UserError(f"{path}: can't read `names`: {quoted(error)}") from None
    return {}


PARSERS: dict[str, Callable[[Path, Optional[Path]], Iterator[Annotated]]] = {
    "labelme": _labelme,
    "coco": _coco,
    "cvat": _cvat,
    "voc": _voc,
    "yolo": _yolo,
}


def _subset_in(name: str) -> Optional[str]:
    found = re.search(r"train|valid|val|test", name.lower())
    return _SUBSETS[found[0]] if found else None
