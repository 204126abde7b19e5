from __future__ import annotations

import logging

import pytest

from liteseg.utils.logging import get_logger, log_file, setup_logging
from liteseg.utils.text import redacted, safe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("a\rb\x07\x08", r"a\rb\x07\x08"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\nliteseg: forged\n  b\n", "a\\nliteseg: forged\n  b\\n"),
        ("line\n  next\tü 图", "line\n  next\tü 图"),
        ("get https://me:pw@h.org/f.tar?k=s&x=1: no", "get https://***@h.org/f.tar?***"),
        ("s3://key:secret@bucket/f", "s3://***@bucket/f"),
    ],
)
def test_safe(text, expected):
    assert safe(text).startswith(expected)
    assert "pw" not in safe(text)


def test_text_without_secrets_is_unchanged():
    for text in ("https://h.org/a/b.tar.gz", "me@example.org", "what? https://h.org/x (y)"):
        assert redacted(text) == text


def test_logs_contain_neither_escapes_nor_secrets(tmp_path, capsys):
    setup_logging()
    with log_file(tmp_path / "train.log"):
        get_logger().warning("\x1b[2J https://h/f?token=abc")
    for text in (capsys.readouterr().out, (tmp_path / "train.log").read_text()):
        assert r"\x1b[2J https://h/f?***" in text
        assert "\x1b[2J" not in text
        assert "abc" not in text
    logging.shutdown()
