"""Every file format: sound files are read, damaged ones are refused in one clear error."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pytest
from fuzzing import damaged, examples, result_or_error
from hypothesis import given
from targets import TARGETS, run

REFUSED = ("checkpoint", "old operators")  # their other files are missing or made up


def zipfile_end(directory):
    """A zip archive of nothing but its directory of one member."""
    counts = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), 0, 0)
    return directory + b"PK\x05\x06" + counts


# Of an attack on the first version: contents that hung, crashed or ran, by target.
CORPUS = {
    "weights": [b"\x80\x02})" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(1, 30)) + b"Ns."],
    "state": [b"\x80\x04" + b"}" * 2_000_000 + b"."],
    "metrics": [b'{"step": "<script>1</script>", "phase": "eval", "miou": NaN}', b"[" * 10**5],
    "evaluation": [b'{"class_iou": {}, "per_image": [{}]}', b"[" * 10**5, b'{"class_iou": '
                   b'{"a": 1}, "per_image": [{"name": "x", "sequence": 1, "predicted": [1e99]}]}'],
    "export": [b"[]", b'{"file": "../x"}', b"[" * 10**5, b"\xff", b'{"format": 1' + b"0" * 5000],
    "checkpoint": [b'{"sha256": {"../../x": ""}}', b'{"sha256": []}', b"[" * 10**5],
    "operators": [b'{"ops": [{"#": "1.save"}]}', b'{"ops": 1}', b"[" * 10**5],
    "pack": [b'{"format": "liteseg pack 1"}', b'{"format": "liteseg pack 1", "bytes": 100, '
             b'"samples": [["a", [1], null, 99999999, 99999999, 0, 1]]}'],
    # A member without a name.
    "zip": [zipfile_end(b"PK\x01\x02" + bytes(42))],
    "config": [b"a: !!set {x, y}", b"a: !!int [1]", b"!!omap []", b"a: !x {b: 1}"],
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_sound_and_damaged_files(name):
    target = TARGETS[name]

    def read(content):
        with tempfile.TemporaryDirectory() as folder:
            return result_or_error(run, target, content, Path(folder))

    assert read(target.sound) == (name not in REFUSED)
    for content in CORPUS.get(name, []):
        if name != "metrics":
            assert not read(content), content[:80]
        read(content)

    @examples(60)
    @given(damaged(target.sound))
    def check(content):
        read(content)

    check()
