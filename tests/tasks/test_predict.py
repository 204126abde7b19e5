"""`liteseg.predict`: its files, with a fake model that labels pixels by their red channel."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from filled_run import draw
from PIL import Image

import liteseg
from liteseg.errors import UserError
from liteseg.tasks import video
from liteseg.tasks.encoder import _browser_codec
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.video import VideoWriter
from liteseg.utils.images import IMAGE_SUFFIXES

PALETTE = np.array([[128, 64, 128], [0, 0, 142], [70, 130, 180]], np.uint8)


class RedSegmenter(Segmenter):
    def __init__(self):
        super().__init__(None, None, ("road", "car", "sky"), PALETTE)

    def predict(self, image):
        return (image[..., 0] // 100).astype(np.uint8)


@pytest.fixture
def predict(tmp_path):
    """Predicts into `out`; returns the errors of skipped inputs."""

    def call(*inputs, **options):
        result = liteseg.predict(inputs, tmp_path / "out", model=RedSegmenter(), **options)
        assert result.output == tmp_path / "out"
        return list(result.skipped.values())

    return call


def write_image(path, seed=0, size=(20, 30)):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return image


def write_video(path, frames=5, rate=12.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 40 * i % 256, np.uint8))
    writer.release()


def files_of(folder: Path):
    """The results, without the list of failures."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(p.relative_to(folder)) for p in files if p.name != "failures.jsonl")


def test_results_of_an_image(predict, tmp_path):
    image = write_image(tmp_path / "a.png")
    assert predict(tmp_path / "a.png") == []
    out = tmp_path / "out"
    assert files_of(out) == ["a_color.png", "a_label.png", "a_overlay.png"]
    expected = image[..., 0] // 100
    np.testing.assert_array_equal(np.array(Image.open(out / "a_label.png")), expected)
    colors = Image.open(out / "a_color.png")
    np.testing.assert_array_equal(np.array(colors), expected)
    np.testing.assert_array_equal(np.array(colors.convert("RGB")), PALETTE[expected])
    overlay = np.array(Image.open(out / "a_overlay.png"))
    assert overlay.shape[0] > 20  # the legend is below
    mixed = 0.45 * image[0, 0] + 0.55 * PALETTE[expected[0, 0]]
    np.testing.assert_allclose(overlay[0, 0], mixed, atol=1)


@pytest.mark.parametrize(
    ("what", "name"),
    [("mask", "a_label.png"), ("palette", "a_color.png"), ("overlay", "a_overlay.png")],
)
def test_only_the_requested_result(predict, tmp_path, what, name):
    write_image(tmp_path / "a.png")
    assert predict(tmp_path / "a.png", what=what) == []
    assert files_of(tmp_path / "out") == [name]


def test_folders_are_mirrored(predict, tmp_path):
    for name in ("in/x.png", "in/deep/er/x.jpg", "in/x.bmp", "in/notes.txt", "in/.hidden.png"):
        write_image(tmp_path / name) if "." + name.split(".")[-1] in IMAGE_SUFFIXES else (
            tmp_path / name
        ).write_text("not an image")
    assert predict(tmp_path / "in", what="mask") == []
    expected = ["deep/er/x_label.png", "x_2_label.png", "x_label.png"]
    assert files_of(tmp_path / "out") == expected


def test_two_folders_and_a_file_do_not_clash(predict, tmp_path):
    for name in ("a/x.png", "b/x.png", "x.png"):
        write_image(tmp_path / name)
    assert predict(tmp_path / "a", tmp_path / "b", tmp_path / "x.png", what="mask") == []
    assert files_of(tmp_path / "out") == ["a/x_label.png", "b/x_label.png", "x_label.png"]


def test_earlier_results_inside_the_input_are_not_predicted(predict, tmp_path):
    write_image(tmp_path / "a.png")
    for _ in range(2):
        assert predict(tmp_path, what="mask") == []
    assert files_of(tmp_path / "out") == ["a_label.png"]


def test_a_broken_file_is_skipped_and_reported(predict, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"not an image")
    write_image(tmp_path / "in" / "c.png")
    (error,) = predict(tmp_path / "in", what="mask")
    assert "b.png" in error
    assert files_of(tmp_path / "out") == ["a_label.png", "c_label.png"]


def test_video(predict, tmp_path):
    path = tmp_path / "v.avi"
    write_video(path)
    assert predict(path) == []
    assert files_of(tmp_path / "out") == ["v_overlay.mp4"]
    video = cv2.VideoCapture(str(tmp_path / "out" / "v_overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    read, frame = video.read()
    assert read
    gray = 0 * 0.45 + 0.55 * PALETTE[0]
    np.testing.assert_allclose(frame[20, 30, ::-1], gray, atol=12)  # the codec is lossy


@pytest.fixture(params=["pyav", "opencv"])
def encoder(request, monkeypatch, caplog):
    """The encoder of result videos, with and without PyAV."""
    if request.param == "pyav":
        pytest.importorskip("av", reason="PyAV is not installed: the extra `video`")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    _browser_codec.cache_clear()
    yield request.param
    _browser_codec.cache_clear()


@pytest.mark.parametrize("rate", [23.976, 60000 / 1001, 66.667, 119.88, 211.222, 240.0])
def test_rates_of_videos(predict, tmp_path, encoder, rate):
    write_video(tmp_path / "v.avi", rate=rate)
    assert predict(tmp_path / "v.avi") == []
    video = cv2.VideoCapture(str(tmp_path / "out" / "v_overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(rate, rel=1e-4)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5


def test_videos_play_in_browsers(tmp_path, encoder, caplog):
    """H.264 with even sides; without PyAV one line reports that they do not."""
    for name in ("v.mp4", "w.mp4"):
        with VideoWriter(tmp_path / name, 12) as writer:
            writer.write(np.zeros((47, 63, 3), np.uint8))
    video = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    code = int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    width = video.get(cv2.CAP_PROP_FRAME_WIDTH)
    lines = [line for line in caplog.messages if "pip install av" in line]
    if encoder == "pyav":
        assert (code, width, len(lines)) == (b"h264", 64, 0)
    else:
        assert (code, width, len(lines)) == (b"FMP4", 62, 1)  # OpenCV cuts


def test_a_broken_video_leaves_nothing(predict, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"not a video")
    (error,) = predict(tmp_path / "v.mp4")
    assert "v.mp4" in error
    assert files_of(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("name", "message"), [("none.png", "does not exist"), ("empty", "contains no images or videos")]
)
def test_missing_inputs(predict, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        predict(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "000000.png"])
def test_pipes_are_not_waited_for(predict, tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    os.mkfifo(folder / name)
    given = folder / ("%06d.png" if name[0] == "0" else name)
    with pytest.raises(UserError, match=f"{name}: is not a regular file"):
        predict(given)
    with pytest.raises(UserError, match="contains no images"):
        predict(folder)


def test_streams_are_for_python(predict):
    with pytest.raises(UserError, match=r"^rtsp://camera/1: streams are read in Python"):
        predict("rtsp://camera/1")


def test_labels_of_the_frames(predict, tmp_path):
    write_video(tmp_path / "v.avi")
    assert predict(tmp_path / "v.avi", what="mask") == []
    out = tmp_path / "out"
    assert files_of(out) == [f"v_label/00000{i}.png" for i in range(5)]
    assert [Image.open(path).getpixel((5, 5)) for path in sorted(out.rglob("*.png"))] == [
        *(0, 0, 0, 1, 1)
    ]


def test_a_numbered_sequence_is_a_video(predict, tmp_path):
    for i in range(4):
        write_image(tmp_path / "drive" / f"{i:03d}.png", i, (48, 64))
    assert predict(tmp_path / "drive" / "%03d.png") == []
    assert files_of(tmp_path / "out") == ["drive_overlay.mp4"]
    video = cv2.VideoCapture(str(tmp_path / "out" / "drive_overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_a_truncated_video_gives_its_readable_frames_and_is_reported(predict, tmp_path):
    path = tmp_path / "v.avi"
    write_video(path, frames=40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    capture = cv2.VideoCapture(str(path))
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) < 40:
        pytest.skip("this OpenCV counts the frames that are there")
    (error,) = predict(path)
    assert "of 40 frames can be read" in error
    assert files_of(tmp_path / "out") == ["v_overlay.mp4"]


def test_image_formats(predict, tmp_path):
    """Gray, transparent, 16-bit, CMYK and rotated images have the labels of their RGB form."""
    folder = tmp_path / "in"
    folder.mkdir()
    rgb = np.zeros((24, 32, 3), np.uint8)
    rgb[:, :16] = 250, 20, 120
    plain = Image.fromarray(rgb)
    plain.save(folder / "plain.png")
    plain.convert("L").save(folder / "gray.png")
    alpha = plain.copy()
    alpha.putalpha(128)
    alpha.save(folder / "alpha.png")
    plain.convert("CMYK").save(folder / "cmyk.jpg", quality=100)
    plain.quantize(8).save(folder / "few.gif")
    if not cv2.haveImageReader(str(folder / "few.gif")):  # as of OpenCV 4.11, if built with it
        (folder / "few.gif").rename(tmp_path / "few.gif")
        plain.quantize(8).save(folder / "few.png")
    plain.save(folder / "lossless.webp", lossless=True)
    assert cv2.imwrite(str(folder / "deep.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    plain.save(folder / "rotated.jpg", quality=100, exif=exif)
    assert predict(folder, what="mask") == []
    expected = rgb[..., 0] // 100
    for name in ("plain", "alpha", "deep", "few", "lossless", "cmyk"):
        found = np.array(Image.open(tmp_path / "out" / f"{name}_label.png"))
        assert found.shape == (24, 32), name
        assert (found == expected).mean() > 0.95, name
    rotated = np.array(Image.open(tmp_path / "out" / "rotated_label.png"))
    assert (rotated == np.rot90(expected, -1)).mean() > 0.9
    gray = np.array(Image.open(tmp_path / "out" / "gray_label.png"))
    assert set(np.unique(gray)) == {0, np.asarray(plain.convert("L"))[0, 0] // 100}


def test_skipped_inputs_are_passed_to_the_caller(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not an image")
    messages = []
    inputs, output = str(tmp_path / "a.png"), tmp_path / "out"  # one input may be given alone
    result = liteseg.predict(inputs, output, model=RedSegmenter(), on_skip=messages.append)
    assert messages == [f"skipped: {result.skipped[tmp_path / 'a.png']}"]
    assert result.inputs == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cfg": "quickstart"}, "--weights is missing"),
        ({"threads": 2}, "go with --model"),
        ({"model": "."}, "no liteseg.json there"),
        ({"model": ".", "weights": "w"}, "leave out --weights"),
        ({"weights": "w", "threads": 2}, "go with --model"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, arguments, message):
    write_image(tmp_path / "a.png")
    with pytest.raises(UserError, match=message):
        liteseg.predict(tmp_path / "a.png", tmp_path / "out", **arguments)


def test_trained_weights(filled_run, tmp_path):
    result = liteseg.predict(filled_run.parent / "data" / "0.png", tmp_path, weights=filled_run)
    assert result.skipped == {}
    label = liteseg.Segmenter.from_pretrained(filled_run).predict(draw(0))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "0_label.png")), label)


def test_results_next_to_the_inputs_are_not_predicted(predict, tmp_path):
    """`--output` is the input's folder or one above it: each call finds the inputs alone."""
    out = tmp_path / "out"
    for name in ("x.png", "x.jpg", "deep/y.png", "z_label.png"):
        write_image(out / name)
    write_video(out / "v.avi")
    for _ in range(3):
        result = liteseg.predict([out], out, model=RedSegmenter())
        assert (result.inputs, result.skipped) == (5, {})
    assert liteseg.predict([out / "deep"], out / "deep", model=RedSegmenter()).inputs == 1
    result = liteseg.predict([out], out, model=RedSegmenter(), what="mask")
    assert (
        result.inputs == liteseg.predict([out], out, model=RedSegmenter(), what="mask").inputs == 5
    )


def test_linked_folders_are_searched_once(predict, tmp_path):
    write_image(tmp_path / "elsewhere" / "a.png")
    write_image(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert predict(tmp_path / "in", what="mask") == []
    assert files_of(tmp_path / "out") == ["b_label.png", "link/a_label.png"]


def test_equal_names_and_other_files_are_reported(predict, tmp_path, caplog):
    for name in ("x.png", "x.jpg"):
        write_image(tmp_path / "in" / name)
    for name in ("notes.txt", "photo.heic", "._x.png"):
        (tmp_path / "in" / name).write_bytes(b"")
    caplog.set_level("INFO")
    assert predict(tmp_path / "in", what="mask") == []
    assert f"{tmp_path / 'in' / 'x.png'}: its results are named x_2; x: " in caplog.text
    assert "2 files of other types are left out (.heic, .txt)" in caplog.text


def test_files_of_the_user_are_not_replaced(predict, tmp_path):
    """The user's own labels, named as results are; before anything is written."""
    write_image(tmp_path / "out" / "a.png")
    write_image(tmp_path / "b.png")
    own = tmp_path / "out" / "a_label.png"
    write_image(own, seed=5)
    before = own.read_bytes()
    inputs = (tmp_path / "b.png", tmp_path / "out" / "a.png")
    with pytest.raises(UserError, match="not written by liteseg"):
        predict(*inputs)
    assert own.read_bytes() == before
    assert files_of(tmp_path / "out") == ["a.png", "a_label.png"]
    predict(*inputs, overwrite=True)
    assert own.read_bytes() != before
    predict(*inputs)  # its own results are replaced


def test_videos_and_frames_of_the_user_are_not_replaced(predict, tmp_path):
    write_video(tmp_path / "a.avi")
    for name, what in (("a_overlay.mp4", "all"), ("a_label/000001.png", "mask")):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
        with pytest.raises(UserError, match="not written by liteseg"):
            predict(tmp_path / "a.avi", what=what)
        assert path.read_bytes() == b"mine"
        path.unlink()
        for _ in range(2):
            assert predict(tmp_path / "a.avi", what=what) == []


def test_a_link_in_place_of_a_result_is_not_followed(predict, tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_label.png").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="not written by liteseg"):
        predict(tmp_path / "a.png")


def test_an_incomplete_video_is_reported(predict, tmp_path, monkeypatch):
    """A full disk leaves a video without its index; OpenCV reports nothing."""
    write_video(tmp_path / "a.avi")
    writer = video.VideoWriter._finish

    def truncated(self):
        content = self._partial.read_bytes()
        self._partial.write_bytes(content[: len(content) // 2])
        writer(self)

    monkeypatch.setattr(video.VideoWriter, "_finish", truncated)
    (problem,) = predict(tmp_path / "a.avi")
    assert "only 0 of 5 frames" in problem
    assert files_of(tmp_path / "out") == []
