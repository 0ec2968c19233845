"""`python -m findings figures`: what is drawn, and what is refused."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from console import run
from findings import __main__ as findings
from findings import published
from measurement import plot

COLUMNS = ("dataset", "N", "steps", "G", "D", "T")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved while the test runs, by the name of their PNG."""
    found = {}
    save = plot.save_figure
    monkeypatch.setattr(
        plot, "save_figure", lambda f, path: (found.update({path.stem: f}), save(f, path))
    )
    return found


def call(*options):
    return run(lambda: findings.main(["figures", *map(str, options)]))


def write_table(path, columns=COLUMNS, **constant):
    """Fifteen rows: T = 50 N^0.1 steps^-0.6 with noise."""
    noise = np.random.default_rng(0)
    rows = []
    for n in (500, 1000, 5000, 10000, 50000):
        for steps in (200, 800, 3200):
            t = 50 * n**0.1 * steps**-0.6 * np.exp(0.1 * noise.normal())
            g, d = noise.normal(), noise.exponential()
            row = {"dataset": f"${n}_{steps}$", "N": n, "steps": steps, "G": g, "D": d, "T": t}
            rows.append(row | constant)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def result(name, values, *, head=True):
    """An entry of step 3's JSON; values of the layers before the classifier."""
    layers = [
        {"name": f"layer{i}", "distance_a_b": 0.1, "transferability": value, "in_mean": True}
        for i, value in enumerate(values)
    ]
    if head:
        layers.append({"name": "fc", "distance_a_b": None, "transferability": 1.0})
    finite = [value for value in values if isinstance(value, float)]
    return {"b": f"/x/{name}.pth", "transferability": float(np.mean(finite)), "layers": layers}


def write_json(path, *results, substitute=False):
    path.write_text(json.dumps({"r_is_substitute": substitute, "results": results}))
    return path


def points(axes, line=0):
    """x and y of one of the lines."""
    return [list(map(float, values)) for values in axes.lines[line].get_data()]


def test_every_figure_as_pdf_and_png(tmp_path, drawn, capsys):
    table = write_table(tmp_path / "r.csv")
    t = write_json(tmp_path / "T.json", result("b", [4.0, 6.0]))
    t0 = write_json(tmp_path / "T0.json", result("b0", [2.0, 6.0]))
    out = tmp_path / "new" / "folder"
    assert call(table, "--json", t, "--null", t0, "--out", out) == 0
    assert list(drawn) == ["scaling", "regression", "layers", "null"]
    names = [f"{name}{ending}" for name in drawn for ending in (".pdf", ".png")]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
    for name, figure in drawn.items():
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        width, height = figure.get_size_inches()
        shape = matplotlib.image.imread(out / f"{name}.png").shape
        assert shape[:2] == (round(height * 150), round(width * 150))


def test_scaling_of_the_published_table(tmp_path, drawn, capsys):
    assert call(published.TABLE, "--out", tmp_path) == 0
    assert capsys.readouterr().out.startswith("note: Published for ResNet-50; source: README")
    (axes,) = drawn["scaling"].axes
    assert axes.get_title() == "slope -0.52 (95 % -0.66 to -0.38), 12 rows"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Training images", r"$T_{FB}(\theta_A)$")
    images, t = points(axes)
    assert (images[0], t[0]) == (pytest.approx(50000), pytest.approx(7.79))
    line = np.log(points(axes, 1))
    slope = np.diff(line[1]) / np.diff(line[0])
    assert slope == pytest.approx(np.full(99, -0.5208), abs=1e-4)
    # Closed form of the interval where the line ends on the left; 2.228: t, 10 degrees of freedom.
    x, y = np.log(images), np.log(t)
    residuals = y - np.polyval(np.polyfit(x, y, 1), x)
    at = x.min()
    share = 1 / 12 + (at - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2)
    half = 2.228 * np.sqrt(residuals @ residuals / 10 * share)
    band = axes.collections[0].get_paths()[0].vertices
    left = np.log(band[np.isclose(band[:, 0], np.exp(at))][:, 1])
    fitted = np.polyval(np.polyfit(x, y, 1), at)
    assert (left.min(), left.max()) == pytest.approx((fitted - half, fitted + half), abs=1e-3)


def test_axes_of_scaling_are_labelled_with_plain_numbers(tmp_path, drawn):
    assert call(write_table(tmp_path / "r.csv"), "--out", tmp_path) == 0
    images, steps = drawn["scaling"].axes
    drawn["scaling"].canvas.draw()
    labels = (images.get_xlabel(), steps.get_xlabel())
    assert labels == ("Training images", "Optimiser steps")
    shown = [label.get_text() for label in images.get_xticklabels()]
    assert {"1,000", "2,000", "5,000", "10,000", "50,000"} <= set(shown)
    assert not any(label.get_text() for label in images.get_xticklabels(minor=True))
    # A short axis has labels, too.
    (tmp_path / "s.csv").write_text("N,T\n11,41\n12,43\n13,42\n14,43.5\n")
    assert call(tmp_path / "s.csv", "--out", tmp_path) == 0
    drawn["scaling"].canvas.draw()
    (axes,) = drawn["scaling"].axes
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 3


def test_regression_figure_has_a_point_and_a_name_for_every_row(tmp_path, drawn):
    assert call(published.TABLE, "--out", tmp_path) == 0
    (axes,) = drawn["regression"].axes
    assert axes.get_title() == "ln T = 0.08 G + 0.11 D - 0.87 log N + 2.84"
    measured, fitted = points(axes, 1)
    assert len(measured) == 12
    assert (measured[0], np.mean(fitted)) == (
        *(pytest.approx(np.log(7.79)), pytest.approx(np.mean(measured))),
    )
    names = [text.get_text() for text in axes.texts]
    assert (len(names), names[0], names[-1]) == (12, "CIFAR-10", "DomainNet-c")
    assert not any(text.get_parse_math() for text in axes.texts)


def test_many_rows_are_drawn_without_names(tmp_path, drawn):
    table = write_table(tmp_path / "r.csv")
    table.write_text(table.read_text() + "one more,100,100,0.5,0.5,7\n")
    assert call(table, "--with", "log_steps", "--out", tmp_path) == 0
    (axes,) = drawn["regression"].axes
    assert not axes.texts
    assert re.search(r" - \d\.\d\d log steps \+ ", axes.get_title())


def test_only_what_the_table_allows(tmp_path, drawn, capsys):
    table = write_table(tmp_path / "r.csv", ("dataset", "N", "steps", "T"), steps=400)
    assert call(table, "--out", tmp_path) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [
        "not drawn: T against steps, which needs four rows and different values",
        f"not drawn: regression; {table} has no column G (or domain_gap); it has dataset, N, "
        "steps, T; --predictors names others, such as log_N,log_steps",
    ]
    assert list(drawn) == ["scaling"]
    assert len(drawn["scaling"].axes) == 1
    # A study on one data set.
    assert call(write_table(tmp_path / "r.csv", G=0.1), "--out", tmp_path) == 0
    assert "not drawn: regression; " in (out := capsys.readouterr().out)
    assert "G is the same in every row" in out
    assert len(drawn["scaling"].axes) == 2


def test_scaling_of_a_study_is_of_the_rows_that_compare(tmp_path, drawn, capsys):
    same = {"start": "theta_A", "classes": 10, "batch_size": 128, "weight_decay": 1e-4}
    table = write_table(tmp_path / "r.csv", ("dataset", "N", "steps", "T", *same), **same)
    plain = table.read_text()
    table.write_text(plain + "x,9,9,1e5,null,10,128,1e-4\nx,9,9,2e5,theta_A,10,128,0\n")
    assert call(table, "--out", tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{table}: 1 of 17 rows left out, whose start is not theta_A",
        f"{table}: 1 of 17 rows left out, which differ from the rest in weight_decay; kept: "
        "weight_decay 0.0001",
    ]
    titles = [axes.get_title() for axes in drawn["scaling"].axes]
    # Five numbers of images are too many for lines of their own.
    assert titles == ["at equal numbers of steps, 15 rows", "15 rows"]
    # Of T0 alone there is nothing to say.
    table.write_text(plain.replace("theta_A", "random"))
    assert call(table, "--out", tmp_path) == 2
    assert capsys.readouterr().err.startswith("error: nothing to draw")


def test_scaling_has_a_line_for_every_value_of_the_other_size(tmp_path, drawn):
    """A line over all steps would be flat and wide, and say nothing of the images."""
    assert call(write_table(tmp_path / "r.csv"), "--out", tmp_path) == 0
    images, steps = drawn["scaling"].axes
    labels = [text.get_text() for text in images.get_legend().get_texts()]
    assert [label.partition(":")[0] for label in labels] == [
        "200 steps",
        "800 steps",
        "3,200 steps",
    ]
    for label in labels:
        assert re.search(r": slope 0\.\d\d \(95 % -?0\.\d\d to 0\.\d\d\)$", label), label
    handles = images.get_legend().legend_handles
    assert len({(line.get_marker(), line.get_linestyle()) for line in handles}) == 3
    assert images.get_title() == "at equal numbers of steps, 15 rows"
    # Five numbers of images are too many for lines of their own.
    assert (steps.get_legend(), steps.get_title()[:8]) == (None, "slope -0")
    assert list(steps.get_xticks()) == [200, 800, 3200]


def test_scaling_of_the_shipped_study_joins_means_of_seeds(study_figures):
    """An interval over rows would take seeds for data sets, and a line would miss the means."""
    images, _ = study_figures["scaling.png"].axes
    assert not images.collections
    assert [text.get_text() for text in images.get_legend().get_texts()] == [
        *("200 steps", "800 steps", "3,200 steps"),
    ]
    line = next(line for line in images.lines if line.get_label() == "800 steps")
    assert list(line.get_xdata()) == pytest.approx([500, 2000, 8000, 32000])
    with open(RESULTS, newline="") as file:
        cell = {"start": "theta_A", "samples": "2000", "steps": "800"}
        rows = [row for row in csv.DictReader(file) if cell.items() <= row.items()]
    expected = np.exp(np.mean([np.log(float(row["transferability"])) for row in rows]))
    assert (len(rows), line.get_ydata()[1]) == (5, pytest.approx(expected))


def test_few_rows_of_a_size_are_drawn_without_a_line(tmp_path, drawn):
    table = tmp_path / "r.csv"
    table.write_text("N,steps,T\n10,2,41\n20,2,43\n30,2,45\n40,2,47\n10,4,30\n20,4,31\n")
    assert call(table, "--out", tmp_path) == 0
    images, _ = drawn["scaling"].axes
    labels = [text.get_text() for text in images.get_legend().get_texts()]
    assert (labels[0][:14], labels[1]) == ("2 steps: slope", "4 steps")


RESULTS = published.TABLE.with_name("results.csv")


@pytest.fixture(scope="module")
def study_figures(tmp_path_factory):
    """The figures of the shipped study, as saved."""
    out = tmp_path_factory.mktemp("study")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "save_figure", lambda f, path: found.update({path.name: f}))
        assert call(RESULTS, "--out", out) == 0
    return found


def column_mean(column, function=float, **wanted):
    """Mean of a function of a column of the shipped study over the rows with these cells."""
    wanted = {"start": "theta_A", "classes": "10", "batch_size": "128"} | wanted
    wanted |= {"weight_decay": "0.0001"}
    with open(RESULTS, newline="") as file:
        rows = [row for row in csv.DictReader(file) if wanted.items() <= row.items()]
    return np.mean([function(float(row[column])) for row in rows])


def test_figures_of_a_study_need_its_table_only(study_figures):
    names = ("scaling", "layers", "depth", "predicted")
    assert list(study_figures) == [name + end for name in names for end in (".pdf", ".png")]


def test_layers_of_a_study_are_means_with_bands(study_figures):
    panels = study_figures["layers.png"].axes
    titles = [f"CIFAR-10, {n} images" for n in ("500", "2,000", "8,000", "32,000")]
    assert [axes.get_title() for axes in panels] == titles
    axes = panels[2]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 17]
    labels = [line.get_label() for line in lines]
    assert labels[:2] == ["200 steps (5 seeds)", "800 steps (5 seeds)"]
    for line, steps in zip(lines, ("200", "800"), strict=False):
        expected = column_mean("T layer1.0", samples="8000", steps=steps)
        assert line.get_ydata()[1] == pytest.approx(expected)
    assert len(axes.collections) == len(lines)
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == len(lines)
    assert len({axes.get_ylim() for axes in panels}) == 1


def test_depth_of_a_study_is_t_t0_and_their_ratio(study_figures):
    panels = study_figures["depth.png"].axes
    assert [axes.get_ylabel() for axes in panels] == ["$T$", "$T_0$", "$T / T_0$"]
    cells = [("T layer2.0", {"steps": "200", "start": start}) for start in ("theta_A", "random")]
    t, t0 = (column_mean(column, samples="8000", **cell) for column, cell in cells)
    logs = [column_mean(column, np.log, samples="8000", **cell) for column, cell in cells]
    firsts = [axes.lines[0] for axes in panels]
    expected = [t, t0, np.exp(logs[0] - logs[1])]
    assert [line.get_ydata()[4] for line in firsts] == pytest.approx(expected)
    # The line of reference is like no line of data: grey, thin, without markers.
    for axes in panels:
        reference = [line for line in axes.lines if len(line.get_xdata()) == 2]
        assert [(line.get_color(), line.get_marker()) for line in reference] == [("0.7", "None")]
    labels = ["200 steps (5 seeds)", "200 steps (3 seeds)", "200 steps"]
    assert [line.get_label() for line in firsts] == labels
    assert panels[0].get_ylim() == panels[1].get_ylim()
    assert panels[0].get_title() == "CIFAR-10, 8,000 images"


def test_predicted_is_from_the_fit_to_the_other_rows(tmp_path, drawn):
    same = {"start": "theta_A", "classes": 10, "batch_size": 128}
    columns = ("dataset", "N", "steps", "T", *same)
    table = write_table(tmp_path / "r.csv", columns, dataset="x", **same)
    assert call(table, "--out", tmp_path) == 0
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    x = np.array([[1, np.log(float(r["N"])), np.log(float(r["steps"]))] for r in rows])
    y = np.log([float(row["T"]) for row in rows])
    beta = np.linalg.lstsq(x[1:], y[1:])[0]
    (axes,) = drawn["predicted"].axes
    measured, predicted = points(axes, 1)
    assert (measured[0], predicted[0]) == pytest.approx((np.exp(y[0]), np.exp(x[0] @ beta)))
    b, c = np.linalg.lstsq(x, y)[0][1:]
    assert axes.get_title() == f"one line, ln T = a + {b:.2f} ln N - {-c:.2f} ln S, 15 rows"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["200 steps", "800 steps", "3,200 steps"]


def write_study(path, **changes):
    """Five runs of a study with two layers, and a random start; changes: in the second row."""
    header = "dataset,start,samples,classes,steps,batch_size,seed,sum_lr,transferability,T l1,T l2"
    rows = [f"x,theta_A,500,10,200,128,{seed},1,{5 + seed},4,{6 + seed}" for seed in range(5)]
    rows.append("x,null,500,10,200,128,0,1.0000001,2,2,2")
    cells = dict(zip(header.split(","), rows[1].split(","), strict=True)) | changes
    rows[1] = ",".join(cells.values())
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_study_with_one_budget_has_layers_and_depth(tmp_path, drawn, capsys):
    table = write_study(tmp_path / "r.csv", **{"T l1": "inf"})
    assert call(table, "--out", tmp_path) == 0
    assert list(drawn) == ["layers", "depth"]
    assert "not drawn: predicted; " in capsys.readouterr().out
    ratio = drawn["depth"].axes[2].lines[0].get_ydata()
    # The first layer did not move in one of the runs.
    assert np.isnan(ratio[0])
    assert ratio[1] == pytest.approx((6 * 7 * 8 * 9 * 10) ** (1 / 5) / 2)
    # Without random starts there is nothing to set T beside.
    table.write_text(table.read_text().replace("null", "other"))
    drawn.clear()
    assert call(table, "--out", tmp_path) == 0
    assert list(drawn) == ["layers"]
    assert "no random start at the budget" in capsys.readouterr().out


def test_study_whose_random_start_has_another_budget_is_refused(tmp_path, capsys):
    table = write_study(tmp_path / "r.csv", sum_lr="2")
    message = r"lines 2 and 3 of the table differ in sum_lr \(1, 2\): T / T0 is of one budget only"
    assert_refused(call(table, "--out", tmp_path / "out"), capsys, message)


def test_wrong_study_is_one_line(tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    for cell in ("", "nan"):
        table = write_study(tmp_path / "r.csv", **{"T l2": cell})
        assert_refused(call(table, *out), capsys, r"line 3 \(x\), column T l2: ")
    table = write_study(tmp_path / "r.csv")
    t = write_json(tmp_path / "T.json", result("b", [4.0, 6.0]))
    assert call(table, "--json", t, *out) == 2
    assert "and of --json would be one file; draw them by two" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_backend_that_is_not_here_is_no_hindrance(tmp_path):
    words = [sys.executable, "-m", "findings", "figures", "findings/published.csv"]
    ran = subprocess.run(
        [*words, "--out", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "MPLBACKEND": "module://not_here"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "scaling.png").exists()


def test_grid_of_layers(tmp_path, drawn, capsys):
    vit = result("vit", [5.0, "inf", 7.0], head=False)
    paths = [
        write_json(tmp_path / "a.json", *(result(f"$b{i}", [2.0, 3.0 + i]) for i in range(3))),
        write_json(tmp_path / "c.json", vit, substitute=True),
    ]
    assert call("--json", paths[0], "--json", paths[1], "--out", tmp_path) == 0
    assert "c.json: theta_r is a substitute; not comparable" in capsys.readouterr().err
    panels = drawn["layers"].axes
    assert [axes.get_title() for axes in panels] == [
        *("$b0 (mean 2.50)", "$b1 (mean 3.00)", "$b2 (mean 3.50)", "vit (mean 6.00)"),
    ]
    assert tuple(drawn["layers"].get_size_inches()) == (15, pytest.approx(6.4))
    assert {axes.get_xlabel() for axes in panels} == {"Block"}
    assert {axes.get_ylabel() for axes in panels} == {r"$T_{FB}(\theta_A)$"}
    # The classifier is a point apart.
    assert [points(panels[1], line) for line in (0, 1)] == [[[1, 2], [2, 4]], [[3], [1]]]
    assert np.isnan(points(panels[3])[1][1])


def test_null_figure_has_means_and_their_ratio_without_the_classifier(tmp_path, drawn):
    t = write_json(
        tmp_path / "T.json", result("b0", [4.0, 9.0, 8.0]), result("b1", [8.0, 3.0, 8.0])
    )
    # Null runs may be in several files.
    null = [
        write_json(tmp_path / f"T0_{i}.json", result(f"n{i}", [1.0 + 2 * i, 5.0 + 2 * i, 0.0]))
        for i in range(2)
    ]
    assert call("--json", t, "--null", *null, "--out", tmp_path) == 0
    left, right = drawn["null"].axes
    curve, _, chance = left.lines
    assert list(curve.get_ydata()) == [6, 6, 8]
    assert list(chance.get_ydata()) == [2, 6, 0]
    # Of geometric means: of 4 and 8 over that of 1 and 3, of 9 and 3 over that of 5 and 7.
    expected = [math.sqrt(32 / 3), math.sqrt(27 / 35)]
    assert list(right.lines[0].get_ydata()[:2]) == pytest.approx(expected)
    assert right.get_title() == f"geometric mean {math.sqrt(math.prod(expected)):.2f}"
    assert np.isnan(right.lines[0].get_ydata()[2])
    assert left.get_title() == "$T$ 6.67 (n = 2), $T_0$ 2.67 (n = 2)"
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["$T$", "$T_0$"]
    # They differ without colours.
    assert curve.get_linestyle() != chance.get_linestyle()
    assert curve.get_marker() != chance.get_marker()
    assert (left.get_yscale(), right.get_ylabel()) == ("log", "$T / T_0$")


RECORD = {
    **{"classes": 10, "train_images": 896, "labels": "true", "image_size": 32, "kept": "last"},
    **{"optimizer": "sgd", "steps": 420, "sum_lr": 2.105, "batch_size": 128, "last_batch": 128},
    **{"weight_decay": 1e-4, "processes": 1},
}


def recorded(name, theta_r="aa", **changes):
    """A result with two layers and the record of its training."""
    return result(name, [4.0, 6.0]) | {"record": RECORD | changes, "sha256_r": theta_r}


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"steps": 800}, r"steps \(420, 800\)"),
        ({"sum_lr": 2.2, "weight_decay": 0.0}, r"sum_lr \(2.105, 2.2\), weight_decay \(0.0001, 0"),
        ({"last_batch": 4}, r"last_batch \(128, 4\)"),
        ({"kept": "best"}, r"kept \(last, best\)"),
        ({"theta_r": "bb"}, "theta_r"),
    ],
)
def test_t_is_not_divided_by_t0_of_another_budget(tmp_path, capsys, drawn, changes, difference):
    out = ("--out", tmp_path / "out")
    t = write_json(tmp_path / "T.json", recorded("b0"), recorded("b1"))
    t0 = write_json(tmp_path / "T0.json", recorded("n0"), recorded("n1", **changes))
    message = f"b0 and n1 differ in {difference}.*; T is divided by T0 at one budget only"
    assert_refused(call("--json", t, "--null", t0, *out), capsys, message)
    mixed = write_json(tmp_path / "mixed.json", recorded("b0"), recorded("b1", **changes))
    null = write_json(tmp_path / "null.json", recorded("n0"))
    assert_refused(call("--json", mixed, "--null", null, *out), capsys, "b0 and b1 differ in")
    assert not drawn


def test_null_may_have_random_labels_and_what_is_unknown_is_not_unlike(tmp_path, capsys, drawn):
    t = write_json(tmp_path / "T.json", recorded("b0"), recorded("b1"))
    same = recorded("n0", labels="random", processes=None, sum_lr=2.105 * (1 + 1e-7))
    t0 = write_json(tmp_path / "T0.json", same)
    assert call("--json", t, "--null", t0, "--out", tmp_path) == 0
    assert capsys.readouterr().err == ""
    assert "null" in drawn
    old = write_json(tmp_path / "old.json", result("n0", [2.0, 3.0]), result("n1", [2.0, 3.0]))
    assert call("--json", t, "--null", old, "--out", tmp_path) == 0
    assert "warning: no record of the training of n0 and 1 more: where" in capsys.readouterr().err


def assert_refused(code, capsys, message):
    err = capsys.readouterr().err
    assert code == 2
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1


# T along the way of fine-tuning


def write_trajectory(path, scheduler, rows, *, finished=True, columns="epoch,step,transferability"):
    path.write_text("\n".join([columns, *rows]) + "\n")
    record = {"args": {"scheduler": scheduler}, "finished": finished}
    path.with_suffix(".json").write_text(json.dumps(record))
    return path


def test_only_curves_at_a_constant_rate_and_annealed_ends_compare(tmp_path, drawn):
    rows = ["1,10,", "2,20,80", "3,40,40", "4,80,30"]  # T of the first epoch is missing
    paths = [
        write_trajectory(tmp_path / "slow.csv", "constant", rows),
        write_trajectory(tmp_path / "wave.csv", "cosine", rows),
        write_trajectory(tmp_path / "open.csv", "step", rows, finished=False),
    ]
    assert call("--along", *paths, "--out", tmp_path / "out") == 0
    (axes,) = drawn["along"].axes
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
def test_wrong_trajectory_is_one_line(tmp_path, capsys, rows, columns, message):
    path = write_trajectory(tmp_path / "x.csv", "cosine", rows, columns=columns)
    assert_refused(call("--along", path, "--out", tmp_path / "out"), capsys, message)
    assert not (tmp_path / "out").exists()


def test_record_must_be_there_and_curves_told_apart(tmp_path, capsys):
    path = write_trajectory(tmp_path / "x.csv", "cosine", ["1,10,5"])
    out = ("--out", tmp_path / "out")
    message = "5 curves cannot be told apart; give at most 4"
    assert_refused(call("--along", *[path] * 5, *out), capsys, message)
    path.with_suffix(".json").unlink()
    assert_refused(call("--along", path, *out), capsys, r"cannot read .*x\.json: No such file")


# Wrong input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot read .*T.json: Expecting value.*; give a JSON file of step 3"),
        ('{"results": 1}', "T.json holds no results of step 3; give a JSON file of step 3"),
        ('{"results": ["x"]}', "T.json holds no results of step 3"),
        ('{"results": [{"b": "x", "transferability": 1, "layers": []}]}', "holds no results of"),
        ('{"results": []}', "T.json holds no results of step 3"),
        (None, "cannot read .*T.json: No such file"),
    ],
)
def test_wrong_json_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "T.json"
    if content is not None:
        path.write_text(content)
    assert_refused(call("--json", path, "--out", tmp_path / "out"), capsys, message)
    assert not (tmp_path / "out").exists()


def test_wrong_input_is_one_line(tmp_path, capsys):
    table = write_table(tmp_path / "r.csv")
    t = write_json(tmp_path / "T.json", result("b", [4.0, 6.0]))
    other = write_json(tmp_path / "O.json", result("o", [4.0, 6.0, 1.0]))
    out = ("--out", tmp_path / "out")
    for options, message in (
        (out, "nothing to draw; give a table with T and N or steps, --json or --along"),
        ((table,), "arguments are required: --out"),
        ((table, "--null", t, *out), "--null needs --json"),
        (("--json", t, "--null", other, *out), "--null: b and o have other layers"),
        ((table, "--with", "size", *out), "has no column size"),
        ((table, "--out", table), "cannot write to the folder .*r.csv: File exists"),
        ((tmp_path / "no.csv", *out), "cannot read .*no.csv"),
    ):
        assert_refused(call(*options), capsys, message)
    no_t = write_table(tmp_path / "factors.csv", COLUMNS[:-1])
    assert_refused(call(no_t, *out), capsys, r"no column T \(or transferability\)")
    little = write_table(tmp_path / "little.csv", ("dataset", "T"))
    assert call(little, *out) == 2
    assert capsys.readouterr().err.startswith("error: nothing to draw")
    for column in ("T", "N", "D"):
        wrong = write_table(tmp_path / "wrong.csv", **{column: "nan"})
        message = f"line 2 .*, column {column}: nan is not finite"
        assert_refused(call(wrong, *out), capsys, message)
    assert not Path(tmp_path / "out").exists()
