"""scripts/bench without PaddleSeg: every case on liteseg, and the comparison of fake peers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import golden_rule
import numpy as np
import pytest
from conftest import ROOT
from tiny_export import make_export

from liteseg.errors import UserError

BENCH = ROOT / "scripts" / "bench"

PEER = """\
import sys
import numpy as np
import protocol
values = {values}
protocol.serve({about!r}, {{"confusion counts": lambda work: protocol.Case(
    lambda: print("noise"), lambda: {{"hits": np.array(values)}})}})
"""


@pytest.fixture
def bench(monkeypatch):
    """The modules of scripts/bench, imported as its scripts do."""
    monkeypatch.syspath_prepend(str(BENCH))
    names = ("protocol", "prepare", "peer_liteseg", "compare", "scale", "torch_twin", "bulk")
    names += ("exchange",)
    yield lambda name: __import__(name)
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def small(bench, monkeypatch):
    """Cases that take milliseconds."""
    protocol = bench("protocol")
    sizes = {
        "CROP": (64, 32),
        "SCALES": (0.5, 1.0, 0.25),
        "SAMPLES_PER_RUN": 3,
        "TRAIN_SHAPE": (2, 64, 64),
        "OHEM_SHAPE": (2, 5, 16, 24),
    }
    for name, value in sizes.items():
        monkeypatch.setattr(protocol, name, value)
    monkeypatch.setattr(bench("prepare"), "CITYSCAPES_SIZE", (128, 64))
    return protocol


def test_every_case_runs_on_liteseg(bench, small, tmp_path):
    bench("prepare").prepare(tmp_path, cityscapes=None, camvid=None)
    ours = bench("peer_liteseg")
    tolerances = bench("compare").TOLERANCES
    for name, make in ours.CASES.items():
        if name == "evaluate CamVid":  # which has no synthetic data
            continue
        case = make(tmp_path)
        case.run()
        result = case.result()
        assert result, name
        assert {key.split()[0] for key in result} <= tolerances.keys(), name
        assert all(np.isfinite(array).all() for array in result.values()), name
    assert set(ours.CASES) == {case.name for case in bench("compare").CASES}
    paddleseg = (BENCH / "peer_paddleseg.py").read_text()
    assert all(f'"{name}"' in paddleseg for name in ours.CASES)


def test_counts_equal_those_of_numpy(bench, tmp_path):
    pred, label = bench("protocol").prediction()
    result = bench("peer_liteseg").CASES["confusion counts"](tmp_path).result()
    for i in range(19):
        assert result["hits"][i] == ((pred == i) & (label == i)).sum()
        assert result["area of prediction"][i] == ((pred == i) & (label != 255)).sum()
        assert result["area of label"][i] == (label == i).sum()


def peers(bench, monkeypatch, folder: Path, **values) -> list:
    """Commands of fake peers with these results, in a folder used as scripts/bench."""
    compare = bench("compare")
    (folder / "protocol.py").write_text((BENCH / "protocol.py").read_text())
    monkeypatch.setattr(compare, "BENCH", folder)
    for name, value in values.items():
        (folder / f"{name}.py").write_text(PEER.format(about=name, values=value))
    return [compare.Command(sys.executable, f"{name}.py", {}) for name in values]


def test_torch_twin_has_the_published_logits(bench, golden):
    """And the parameters of PP-LiteSeg-T under the same keys."""
    torch = pytest.importorskip("torch")
    twin = bench("torch_twin")
    model = twin.PPLiteSeg(19).eval()
    published = json.loads((golden / "state_dict_T.json").read_text())
    shapes = {key: list(value.shape) for key, value in model.state_dict().items() if value.dim()}
    assert shapes == {twin.torch_key(key): shape for key, shape in published.items()}
    model.load_arrays({key: golden_rule.value(key, shape) for key, shape in published.items()})
    images = torch.tensor(golden_rule.image(1, (1, 3, 101, 157)).numpy())
    with torch.no_grad():
        (logits,) = model(images.contiguous(memory_format=torch.channels_last))
    expected = np.load(golden / "model_T.npz")["eval_odd_logits_every7"]
    assert np.abs(logits[:, :, ::7, ::7].numpy() - expected).max() <= 1e-4


def test_measures_and_compares(bench, monkeypatch, tmp_path):
    """Output of a peer's libraries is kept apart from its answers."""
    commands = peers(bench, monkeypatch, tmp_path, first=[3, 4], same=[3, 4], other=[3, 5])
    compare = bench("compare")
    rows = compare.measure(commands, compare.Case("confusion counts"), tmp_path, 2)
    assert [row["peer"] for row in rows] == ["first", "same", "other"]
    assert all(len(row["seconds"]) == 2 and row["peak_mib"] > 5 for row in rows)
    assert rows[0]["ratio"] == rows[0]["cpu_ratio"] == 1
    assert [row["differences"] for row in rows] == [
        [],
        [],
        ["hits: largest difference 1, at most 0"],
    ]
    table = compare.table(rows)
    assert table.splitlines()[0] == "| work | first | same | other |"
    assert table.count("DIFFERS") == 1


def test_failing_peer_is_reported(bench, monkeypatch, tmp_path):
    commands = peers(bench, monkeypatch, tmp_path, first=[1])
    (tmp_path / "first.py").write_text("raise SystemExit('no such library')")
    compare = bench("compare")
    with pytest.raises(SystemExit, match=r"first\.py confusion counts .* ended early"):
        compare.measure(commands, compare.Case("confusion counts"), tmp_path, 1)


@pytest.mark.parametrize(
    ("name", "found", "expected", "sentences"),
    [
        ("image at 0.5", [10.0, 20.4], [10.0, 20.0], []),
        ("image at 0.5", [10.0, 22.0], [10.0, 20.0], ["gray levels 1, at most 0.5"]),
        ("label at 0.5", [1, 2], [1, 3], ["share of other labels 0.5"]),
        ("losses", [2.0, 3.0], [2.0, 3.00001], []),
        ("losses", [2.0, 3.0], [2.0, 3.1], ["relative difference 0.0271"]),
        ("losses", [np.nan], [1.0], ["relative difference nan"]),
        ("hits", [1, 2], [1, 2, 3], ["hits is (2,), not (3,)"]),
    ],
)
def test_differences(bench, name, found, expected, sentences):
    actual = bench("compare").differences({name: np.array(found)}, {name: np.array(expected)})
    assert len(actual) == len(sentences)
    assert all(part in sentence for part, sentence in zip(sentences, actual))


def test_no_common_result_is_a_difference(bench):
    assert bench("compare").differences({"hits": np.zeros(1)}, {}) == ["no result in common"]


def test_help_of_run_sh():
    script = BENCH / "run.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    done = subprocess.run(["bash", str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "bash scripts/bench/run.sh --cityscapes DIR --camvid DIR" in done.stdout


def test_scale_varies_one_value_at_a_time(bench):
    scale = bench("scale")
    found = scale.all_points((480, 352))
    base = scale.Point(4, (480, 352), 1, 1)
    assert base in found
    assert len(found) == len(set(found)) == 9
    for point in found:
        assert sum(a != b for a, b in zip(point, base)) <= 1
        assert all(side % 32 == 0 for side in point.crop)


def test_scale_measures_a_row(bench, tmp_path, capsys, monkeypatch):
    """One process is enough here."""
    scale = bench("scale")
    root = bench("prepare").generate(tmp_path / "s", 2, 1, (128, 64), progress=False)
    monkeypatch.setattr(scale, "all_points", lambda crop: [scale.Point(2, (64, 32), 0, 1)])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    sets = [f"{split}_dataset.dataset_root={root}" for split in ("train", "val")]
    arguments = ["--config", f"{ROOT}/configs/quickstart.yml", "--steps", "1"]
    assert scale.main([*arguments, *(part for one in sets for part in ("--set", one))]) == 0
    row = capsys.readouterr().out.splitlines()[2].strip("| ").split(" | ")
    assert row[:4] == ["2", "64x32", "0", "1"]
    assert float(row[6]) == pytest.approx(2 / float(row[4]), rel=0.2)
    assert row[8] == "–"


def test_scale_needs_a_crop(bench, capsys):
    scale = bench("scale")
    arguments = [
        "--config",
        f"{ROOT}/configs/quickstart.yml",
        "--set",
        "train_dataset.transforms=[]",
    ]
    assert scale.main(arguments) == 2
    assert "no RandomPaddingCrop" in capsys.readouterr().err


def test_peers_are_compared_with_paddleseg_on_the_same_paddle(bench):
    base = bench("compare")._base
    old, new = "PaddleSeg 2.8.0, Paddle 2.6.2", "PaddleSeg 2.8.0, Paddle 3.3.1"
    ours = ["liteseg, Paddle 2.6.2", "liteseg, Paddle 3.3.1"]
    assert [base(about, [old, new, *ours]) for about in (old, new, *ours)] == [0, 1, 0, 1]
    assert [base(about, [old, *ours]) for about in (old, *ours)] == [0, 0, 0]
    assert base("PyTorch 2.13.0", [old, new, "PyTorch 2.13.0"]) == 0


def test_exchange_measures_and_computes(bench, capsys, monkeypatch):
    exchange = bench("exchange")
    monkeypatch.setattr(exchange, "MODELS", {"T": exchange.MODELS["T"]})
    monkeypatch.setattr(exchange, "CROP", (64, 32))
    assert exchange.main(["--processes", "1", "2", "--repeat", "1"]) == 0
    measured, computed = capsys.readouterr().out.split("\n\n")
    header, _, row = (line.strip("| ").split(" | ") for line in measured.splitlines())
    cells = dict(zip(header, row))
    assert cells["gradients"] == "32.6 MB"
    assert cells["exchange, 1 processes"] == "0 ms"
    assert float(cells["exchange, 2 processes"].split()[0]) > 0
    assert len(computed.splitlines()) == 7


def test_exchange_of_a_ring(bench):
    exchange = bench("exchange")
    # Each of two members sends the half that it has not summed, and the one that it has.
    assert exchange.ring_seconds(10**9, 2, 1.0) == 1.0
    assert exchange.ring_seconds(10**9, 1, 1.0) == 0.0
    assert exchange.ring_seconds(10**9, 4, 1.0) == 1.5
    counts = exchange.Counts(0, 0, exchange.FLOPS * exchange.REACHED / 6)  # 1 s per image
    assert exchange.efficiency(counts, 2, 1, 8, 1.0, 1.0) == (2000, 0, 1)
    counts = counts._replace(gradient_bytes=10**9)
    compute, exchanged, share = exchange.efficiency(counts, 1, 2, 1, 9.0, 1.0)
    assert (compute, exchanged, share) == (1000, 1000, 0.5)
    assert exchange.efficiency(counts, 1, 2, 1, 9.0, 1.0, overlap=1.0)[2] == 1


def test_bulk_prediction_is_measured(bench, capsys, tmp_path):
    bulk = bench("bulk")
    bulk.main(["--model", f"{make_export(tmp_path)}", "--counts", "2", "1200"])
    *table, rate, computed = capsys.readouterr().out.splitlines()
    cells = (row.strip("| ").split(" | ") for row in table[2:])
    rows = [[float(cell.replace(",", "")) for cell in row] for row in cells]
    assert [row[0] for row in rows] == [2, 1200]
    per_second = 1198 / (rows[1][2] - rows[0][2])
    assert float(rate.split()[0]) == pytest.approx(per_second, rel=0.5)  # of rounded seconds
    cores, rest = re.fullmatch(r"computed: (\d+) cores for (.*)", computed).groups()
    assert int(cores) == pytest.approx(10**8 / 86400 / float(rate.split()[0]), abs=0.6)
    assert rest == "100,000,000 images in a day"
    with pytest.raises(UserError, match="failed; its message is above"):
        bulk.main(["--model", f"{tmp_path / 'none'}", "--counts", "1"])
