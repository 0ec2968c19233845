"""The remade table: its plan, its hypotheses, and its page."""

import csv
import math
import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from console import run
from findings import table_plan
from findings.__main__ import main
from safe_io import atomic_write

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "findings" / "table_results.csv"
PAGE = ROOT / "findings" / "TABLE.md"
SETS = list(table_plan.TRAIN_IMAGES)
SEEN = ["cifar10", "mnist"]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# --- The plan ---


def test_plans_in_the_repository_are_those_of_the_program(tmp_path, capsys):
    assert run(lambda: main(["table_plan", str(tmp_path)])) == 0
    assert "215 runs, 115860 steps" in capsys.readouterr().out
    for name in ("table_plan.csv", "table_plan_a2.csv"):
        assert (tmp_path / name).read_bytes() == (ROOT / "findings" / name).read_bytes()


def test_every_run_is_of_whole_batches_and_there_once():
    rows = read(ROOT / "findings" / "table_plan.csv")
    assert all(int(row["samples"]) % int(row["batch_size"]) == 0 for row in rows)
    runs = [tuple(value for key, value in row.items() if key != "block") for row in rows]
    assert len(set(runs)) == len(runs)
    # The sum of rates is the same in block F: steps times rate.
    budgets = {int(row["steps"]) * float(row["lr"]) for row in rows if row["block"] in "EF"}
    assert {round(x, 9) for x in budgets} == {4.2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of empty images, enough in every class but one, and the links between them."""
    data = tmp_path_factory.mktemp("data")
    (data / "image").touch()
    for name, classes in (("cifar10", 10), ("gtsrb", 12), ("tiny", 51)):
        for number in range(classes):
            few = name == "gtsrb" and number == 0
            for split, images in (("train", 3 if few else 448), ("val", 2)):
                place = data / name / split / f"c{number:02}"
                place.mkdir(parents=True)
                for image in range(images):
                    os.link(data / "image", place / f"{image}.jpg")
    assert run(lambda: main(["table_plan", str(data), str(data)])) == 0
    return data


def classes_of(folder):
    return sorted(path.name for path in folder.iterdir())


def test_classes_are_nested_and_have_enough_images(folders):
    for name, numbers in table_plan.CLASSES.items():
        for seed in range(3):
            drawn = [classes_of(folders / f"{name}_k{k}_s{seed}" / "train") for k in numbers]
            assert [len(classes) for classes in drawn] == list(numbers)
            for fewer, more in pairwise(drawn):
                assert set(fewer) < set(more)
            assert name != "gtsrb" or "c00" not in drawn[-1]
    assert len({tuple(classes_of(folders / f"tiny_k20_s{s}" / "train")) for s in range(3)}) == 3


def test_merged_classes_hold_all_ten_and_unseen_images_are_those_of_validation(folders):
    for number in table_plan.MERGED:
        merged = folders / f"cifar10_merged{number}_s1" / "train"
        assert classes_of(merged) == [f"m{i}" for i in range(number)]
        held = sorted(c for group in merged.iterdir() for c in classes_of(group))
        assert held == classes_of(folders / "cifar10" / "train")
    seen, unseen = folders / "tiny_k20_s2", folders / "tiny_unseen20_s2"
    assert classes_of(seen / "train") == classes_of(unseen / "train")
    assert {len(list((path / path.name).iterdir())) for path in (unseen / "train").iterdir()} == {2}


# --- The hypotheses, on tables whose truth is known ---


def made_table(path, *, at_steps=0.0, of_classes=True, random_labels=0.5, agreement=0.3):
    """A table in which ln T falls with ln N by 0.5 at equal epochs, and by `at_steps` at steps.

    of_classes: the direction of the profile follows K. random_labels: ln T more with them.
    agreement: of seeds, from theta_A.
    """
    random = np.random.default_rng(1)
    rows = []

    def add(block, name, seed, t, **cells):
        k, images = 2 + 3 * SETS.index(name), table_plan.WHOLE[name]
        slope = (22 - k) / 20 if of_classes else random.normal()
        layers = np.linspace(-1, 1, 17) * slope + random.normal(0, 0.3, 17)
        t = math.exp(t + random.normal(0, 0.02))
        rows.append(
            {
                **{"block": block, "dataset": "Folder", "folder": name, "start": "theta_A"},
                **{"labels": "true", "samples": images if block in "PW" else 896, "classes": k},
                **{"steps": 420, "lr": 0.01, "seed": seed, "a_sha256": "f" * 64},
                **{
                    "G": 0.01 * (1 + SETS.index(name) * 7 % 15),
                    "D": 0.5 + 0.01 * k % 0.3,
                    "val_acc": 50.0,
                },
                **{"transferability": t, "geometric_mean": t * 0.9, "rotation": 2.0},
                **{"left_of_r": 0.01, "transferability_substitute": t * 1.01},
                **{"agreement_01": "", "agreement": ""},
                **{f"T l{i}": t * math.exp(x) for i, x in enumerate(layers)},
                **{f"T_angle l{i}": 50 - i + random.normal(0, 0.1) for i in range(5)},
                **cells,
            }
        )

    for name in SETS:
        log_n = math.log(table_plan.WHOLE[name])
        noise = random.normal(0, 0.01)
        for seed in (0, 1):
            add("E", name, seed, 4, agreement_01=agreement + noise)
            add("P", name, seed, 8 - 0.5 * log_n, steps=20 * table_plan.WHOLE[name] // 128)
            if name != "dtd10":
                add("W", name, seed, 4 + at_steps * log_n)
            rising = {f"T_angle l{i}": 50 - i * (1 - i % 2) for i in range(5)}
            add("N", name, seed, 3, start="shuffled", agreement_01=0.05, **rising)
        add("N", name, 0, 4 + random_labels, labels="random")
        add("A2", name, 0, 4)
    atomic_write(path, pd.DataFrame(rows).to_csv(index=False))
    return path


def decisions(path, capsys):
    """Hypothesis -> its lines."""
    capsys.readouterr()
    assert run(lambda: main(["table", str(path)])) == 0
    out = capsys.readouterr().out
    return {
        name: re.search(rf"^{name}\b.*\n((?:  .*\n?)*)", out, re.MULTILINE)[1]
        for name in ("H1", "H2-G", "H2-K", "H3", "H4a", "H4b", "H5")
    }


def test_what_is_true_of_a_table_holds(tmp_path, capsys):
    found = decisions(made_table(tmp_path / "t.csv"), capsys)
    for name in ("H1", "H3", "H4a", "H4b"):
        assert "\n  holds: " in "\n" + found[name], found[name]
    for name in ("H2-G", "H2-K"):
        assert "DOES NOT HOLD" in found[name]
    slope = re.search(r"equal epochs (\S+) \(95 % (\S+) \.\.\. (\S+)\)", found["H1"]).groups()
    assert list(map(float, slope)) == pytest.approx([-0.5] * 3, abs=0.03)
    assert "T_angle falls (-0.5 or less) in 13 of 13" in found["H3"]
    assert "from the shuffled start in 13 " in found["H3"]
    assert "left of theta_r in the second theta_A 0.0100" in found["H5"]
    assert "in 15 of 15 sets on the second theta_A" in found["H5"]


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"at_steps": -0.4}, "H1"),
        ({"of_classes": False}, "H3"),
        ({"random_labels": -0.2}, "H4a"),
        ({"agreement": 0.05}, "H4b"),
    ],
)
def test_what_is_not_true_does_not_hold(tmp_path, capsys, wrong, name):
    found = decisions(made_table(tmp_path / "t.csv", **wrong), capsys)
    assert "DOES NOT HOLD" in found[name], found[name]


def test_hypothesis_without_its_runs_is_not_decided(tmp_path, capsys):
    table = pd.read_csv(made_table(tmp_path / "t.csv"), dtype=str, keep_default_na=False)
    table[table["block"] != "N"].to_csv(tmp_path / "part.csv", index=False)
    found = decisions(tmp_path / "part.csv", capsys)
    assert "not decided: its runs are not all there" in found["H4a"]
    # It still counts in the correction: six times the smallest p.
    p, adjusted = re.search(r"p (\S+), (\S+) after", found["H1"]).groups()
    assert float(adjusted) >= 4 * float(p)


def test_table_of_one_data_set_is_refused(capsys):
    assert run(lambda: main(["table", str(ROOT / "findings" / "results.csv")])) == 2
    assert "is not the table of several blocks: it has no column block" in capsys.readouterr().err


# --- The results ---


@pytest.fixture(scope="module")
def results():
    return pd.read_csv(RESULTS)


def mean_log_t(rows):
    return np.log(rows["transferability"]).groupby(rows["folder"]).mean()


def true_rows(results, block, **cells):
    """Runs from theta_A of a block; cells: of columns."""
    cells = {"block": block, "start": "theta_A", "labels": "true", **cells}
    return results[(results[[*cells]] == list(cells.values())).all(axis=1)]


def test_h1_is_that_of_an_independent_computation(results, capsys):
    y_p = mean_log_t(true_rows(results, "P"))
    whole = true_rows(results, "W")
    dtd10 = true_rows(results, "E", folder="dtd10")
    whole = pd.concat([whole, dtd10[dtd10["seed"].isin(whole["seed"])]])
    y_w = mean_log_t(whole)
    log_n = np.log(true_rows(results, "P", seed=0).set_index("folder")["samples"])
    x = sm.add_constant(log_n.loc[y_p.index].to_numpy())
    assert len(x) == 15
    p = []
    for y in (y_p, y_p - y_w):
        fit = sm.OLS(y.to_numpy(), x).fit(cov_type="HC3", use_t=True)
        p.append(fit.pvalues[1] / 2 if fit.params[1] < 0 else 1 - fit.pvalues[1] / 2)
    fit = sm.OLS(y_w.loc[y_p.index].to_numpy(), x).fit()
    tost = [fit.t_test(([0, 1], bound)) for bound in (0.26, -0.26)]
    inside = abs(fit.params[1]) < 0.26
    p.append(max(test.pvalue / 2 if inside else 1 for test in tost))
    found = decisions(RESULTS, capsys)["H1"]
    slopes = [float(x) for x in re.findall(r"(\S+) \(95 %", found)][:3]
    assert slopes[0] == pytest.approx(np.polyfit(log_n.loc[y_p.index], y_p, 1)[0], abs=5e-4)
    assert slopes[2] == pytest.approx(fit.params[1], abs=5e-4)
    assert float(re.search(r": p (\S+), ", found)[1]) == pytest.approx(float(max(p)), rel=0.06)


def test_h4a_is_that_of_an_independent_computation(results, capsys):
    null = results[(results["labels"] == "random") & (results["steps"] == 420)]
    difference = mean_log_t(null[null["seed"] == 0]) - mean_log_t(true_rows(results, "E", seed=0))
    difference = difference.dropna().drop(SEEN)
    assert len(difference) == 13
    t = difference.mean() / (difference.std() / math.sqrt(13))
    p = sm.stats.DescrStatsW(difference).ttest_mean(0, "larger")
    assert p[0] == pytest.approx(t)
    found = decisions(RESULTS, capsys)["H4a"]
    mean = float(re.search(r"true labels\) (\S+) \(95 %", found)[1])
    assert mean == pytest.approx(difference.mean(), abs=5e-4)
    assert float(re.search(r"one-sided p (\S+)", found)[1]) == pytest.approx(p[1], rel=0.06)


def test_numbers_of_the_page_are_printed_by_its_command(capsys):
    capsys.readouterr()
    assert run(lambda: main(["table"])) == 0
    out = capsys.readouterr().out.splitlines()
    page = PAGE.read_text()
    printed = [line for block in re.findall(r"```\n(.*?)```", page, re.DOTALL) for line in
               block.splitlines() if not line.startswith("python")]  # fmt: skip
    tables = [line for line in page.splitlines() if line.startswith("| ") and " +- " in line]
    assert len(tables) >= 15
    assert printed
    for line in [*printed, *tables]:
        assert not line or line in out, line
