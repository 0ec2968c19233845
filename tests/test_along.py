"""The figure of T along the way of fine-tuning."""

import json

import pytest

from console import run
from findings.__main__ import main


def write_way(path, scheduler, rows, *, finished=True, columns="epoch,step,transferability"):
    path.write_text("\n".join([columns, *rows]) + "\n")
    record = {"args": {"scheduler": scheduler}, "finished": finished}
    path.with_suffix(".json").write_text(json.dumps(record))
    return path


def draw(out, *paths):
    return run(lambda: main(["figures", "--along", *map(str, paths), "--out", str(out)]))


def test_only_curves_at_a_constant_rate_and_annealed_ends_compare(tmp_path, figures):
    rows = ["1,10,", "2,20,80", "3,40,40", "4,80,30"]  # T of the first epoch is missing
    ways = [
        write_way(tmp_path / "slow.csv", "constant", rows),
        write_way(tmp_path / "wave.csv", "cosine", rows),
        write_way(tmp_path / "open.csv", "step", rows, finished=False),
    ]
    assert draw(tmp_path / "out", *ways) == 0
    (axes,) = figures[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    curve = [[20, 80], [40, 40], [80, 30]]
    assert lines == {
        "slow": curve,
        "wave (not annealed)": curve,
        "wave, annealed": [[80, 30]],
        "open (not annealed)": curve,
    }
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["along.pdf", "along.png"]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (["1,10"], "epoch,step", "has no column transferability; finetune.py -r FILE measures it"),
        (["1,10,"], "epoch,step,transferability", "holds no value of T"),
        (["1,10,x"], "epoch,step,transferability", "transferability"),
    ],
)
def test_wrong_file_is_one_line(tmp_path, capsys, rows, columns, message):
    path = write_way(tmp_path / "x.csv", "cosine", rows, columns=columns)
    assert draw(tmp_path / "out", path) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_record_must_be_there_and_curves_told_apart(tmp_path, capsys):
    path = write_way(tmp_path / "x.csv", "cosine", ["1,10,5"])
    assert draw(tmp_path / "out", *[path] * 5) == 2
    assert "5 curves cannot be told apart; give at most 4" in capsys.readouterr().err
    path.with_suffix(".json").unlink()
    assert draw(tmp_path / "out", path) == 2
    assert "x.json" in capsys.readouterr().err
