"""`python -m findings summary`: b and c, runs with one thing changed, and depth."""

import math
import re

import pytest

from console import run
from findings.__main__ import main

HEADER = (
    "dataset,start,samples,classes,steps,batch_size,lr,weight_decay,seed,probe_loss,a_sha256,"
    "transferability,T l1,T l2,T l3"
)
NOT_FITTED = "ln T = a + b ln N + c ln S is not fitted: that takes four runs a seed"


def row(**changes):
    """A row of results with three layers."""
    cells = dict.fromkeys(HEADER.split(","), "1") | {
        **{"dataset": "X", "start": "theta_A", "samples": "500.0", "steps": "200"},
        **{"classes": 10, "batch_size": 128, "lr": "0.01", "weight_decay": "1e-4", "seed": "0"},
        **{"a_sha256": "aa", "T l1": "1", "T l2": "2", "T l3": "3"},
    }
    return ",".join(str(cell) for cell in (cells | changes).values())


@pytest.fixture
def summarise(tmp_path, capsys):
    """Exit code, stdout and stderr of the command on these rows."""

    def call(rows, header=HEADER):
        (tmp_path / "r.csv").write_text("\n".join([header, *rows]) + "\n")
        code = run(lambda: main(["summary", str(tmp_path / "r.csv")]))
        return code, *capsys.readouterr()

    return call


def lines_of(summarised):
    code, out, err = summarised
    assert (code, err) == (0, "")
    return out.splitlines()


# Data and steps


def grid(slopes, **changes):
    """Nine runs a seed whose ln T is 1 + b ln N + c ln S, without noise."""
    rows = []
    for seed, (b, c) in enumerate(slopes):
        for i, n in enumerate((500, 2000, 8000)):
            for j, s in enumerate((200, 800, 3200)):
                t = math.exp(1 + b * math.log(n) + c * math.log(s))
                sizes = {"samples": n, "steps": s, "seed": seed, "probe_loss": (i - j) ** 2}
                rows.append(row(transferability=repr(t), **sizes, **changes))
    return rows


def test_slopes_are_recovered_per_seed_with_their_interval(summarise):
    # Neither a null run nor one with another batch size belongs to the fit.
    sizes = {"samples": 8000, "steps": 800, "transferability": 5}
    rows = [*grid([(0.1, -0.7), (0.2, -0.6), (0.0, -0.5)])]
    rows += [row(**sizes, start="null"), row(**sizes, batch_size=32)]
    lines = lines_of(summarise(rows))
    assert lines[0] == "dataset X, classes 10, batch_size 128, lr 0.01, weight_decay 1e-4:"
    assert lines[1] == " 3 seeds; N 500, 2000, 8000; S 200, 800, 3200"
    assert lines[2] == "  ln T = a + b ln N + c ln S"
    # Mean 0.1, sd 0.1, t(0.975, 2) = 4.303.
    half = 4.303 * 0.1 / math.sqrt(3)
    assert lines[3] == f"    b      +0.100 (95 % {0.1 - half:+.3f} ... {0.1 + half:+.3f}, 3 seeds)"
    assert lines[4].startswith("    c      -0.600 (95 % ")
    assert lines[5].startswith("    b + c  -0.500 (95 % ")
    assert lines[7].startswith("    b      +0.100")
    assert lines[10].startswith("published slope of ln T on ln N, over data sets: -0.52")
    assert lines[-1] == "  published values of CIFAR-10: +0.51 over 17 layers"


def test_one_seed_has_no_interval(summarise):
    lines = lines_of(summarise(grid([(0.1, -0.7)])))
    assert lines[3] == "    b      +0.100 (one seed, no interval)"


def test_seeds_with_other_rows_are_not_taken_for_noise(summarise):
    """ln T bends over ln S and has no noise: seeds without the longest runs must not differ."""
    rows = []
    for seed in range(4):
        for n in (500, 2000):
            for s in (200, 800, 3200)[: 3 if seed < 2 else 2]:
                t = math.exp(5 - 0.05 * math.log(s) ** 2)
                sizes = {"samples": n, "steps": s, "seed": seed, "probe_loss": n % 7}
                rows.append(row(transferability=repr(t), **sizes))
    lines = lines_of(summarise(rows))
    assert [line for line in lines if "seeds; N" in line] == [
        " 4 seeds; N 500, 2000; S 200, 800",
        " 2 seeds; N 500, 2000; S 200, 800, 3200",
    ]
    slope = re.compile(r"    (?:b \+ c|b|c) +([+-].*) \(95 % ([+-].*) \.\.\. ([+-].*), .*\)")
    slopes = [found for line in lines if (found := slope.fullmatch(line))]
    assert len(slopes) >= 6
    assert all(found[1] == found[2] == found[3] for found in slopes)


def test_probe_loss_that_explains_everything_leaves_no_slopes(summarise):
    """With ln T a function of the probe loss alone, b and c at equal loss are 0."""
    rows = [
        row(samples=n, steps=s, probe_loss=loss, transferability=repr(math.exp(2 - 0.3 * loss)))
        for n, s, loss in ((500, 200, 0), (500, 800, 2), (2000, 200, 5), (2000, 800, 1), (1, 9, 3))
    ]
    lines = lines_of(summarise(rows))
    assert lines[6] == "  the same with the training loss of the probe as a further predictor"
    assert lines[7].replace("-0.000", "+0.000") == "    b      +0.000 (one seed, no interval)"


def test_data_and_steps_that_go_together_are_not_fitted(summarise):
    rows = [row(samples=n, steps=10 * n, transferability=n) for n in (100, 200, 400, 800, 1600)]
    assert lines_of(summarise(rows))[0].startswith(NOT_FITTED)


def test_two_theta_a_are_fitted_apart(summarise):
    rows = grid([(0.1, -0.5)]) + grid([(0.1, -0.5)], a_sha256="bb" * 32)
    titles = [line for line in lines_of(summarise(rows)) if line.startswith("dataset X")]
    assert [title.rpartition(" ")[2] for title in titles] == ["aa:", "bbbbbbbb:"]


def test_settings_compare_as_numbers(summarise):
    rows = grid([(0.1, -0.5)], lr="1e-2")[:4] + grid([(0.1, -0.5)])[4:]
    _, out, _ = summarise(rows)
    assert out.count("dataset X") == 1
    assert "one thing changed" not in out


# One thing changed


def changed(rows, summarise):
    """The lines about it."""
    lines = lines_of(summarise(rows))
    first = lines.index("one thing changed") + 1 if "one thing changed" in lines else len(lines)
    return [line for line in lines[first:] if " beside " in line]


def test_changed_runs_are_compared_with_the_run_of_the_same_seed_images_and_steps(summarise):
    def arm(seed, t, **changes):
        return row(seed=seed, transferability=t, **{"samples": 8000, "steps": 800} | changes)

    rows = [arm(seed, 10 * (seed + 1)) for seed in range(3)]
    # Another number of images or steps, and the null, are not what an arm is compared with.
    rows += [arm(seed, 500, samples=500) for seed in range(3)]
    rows += [arm(seed, 900, steps=200) for seed in range(3)]
    rows += [arm(0, 7, start="null", batch_size=32)]
    # The same number, written in another way, is no change.
    rows += [arm(3, 40, weight_decay="0.0001")]
    # Ratios 0.4, 0.5, 0.6: sd 0.1, t(0.975, 2) = 4.303.
    rows += [arm(seed, (4 + seed) * (seed + 1), batch_size=32) for seed in range(3)]
    rows += [arm(0, 20, classes=2, weight_decay=0)]
    rows += [arm(4, 1, classes=5)]  # no run beside it
    assert changed(rows, summarise) == [
        "  batch_size 32: T 10.67 beside 20.00 (N 8000, S 800), ratio 0.500 "
        "(95 % 0.252 ... 0.748, 3 seeds)",
        "  classes 2, weight_decay 0: T 20.00 beside 10.00 (N 8000, S 800), ratio 2.000 (one seed)",
    ]


def test_without_changed_runs_or_runs_from_theta_a_nothing_is_said_of_them(summarise):
    assert changed([row(seed=0), row(seed=1)], summarise) == []
    assert changed([row(start="null")], summarise) == []


# Depth


def layers(*values, **changes):
    return row(**{f"T l{i}": value for i, value in enumerate(values, start=1)}, **changes)


def test_depth_is_correlated_run_by_run_with_and_without_the_null(summarise):
    rows = [layers(1, 2, 3, seed=0), layers(3, 2, 1, seed=0, steps=800), layers(1, 3, 2, seed=1)]
    # No null run has the budget of this one, with more images.
    rows += [layers(1, 3, 2, seed=1, samples=8000)]
    # T / T0 of the 200-step runs: 1, 1/2, 3/8 and 1, 3/4, 1/4.
    rows += [layers(1, 3, 7, start="null", seed=0), layers(1, 5, 9, start="null", seed=1)]
    t, t0, ratio, _ = lines_of(summarise(rows))[-4:]
    # Seeds: (1 - 1) / 2 = 0, and 0.5; their t interval with one degree of freedom is 12.7 wide.
    assert t == "  T      positive in 3 of 4 runs, mean +0.250 (95 % -2.927 ... +3.427, 2 seeds)"
    assert t0 == "  T0     positive in 2 of 2 runs, mean +1.000 (95 % +1.000 ... +1.000, 2 seeds)"
    assert ratio.startswith("  T / T0 positive in 0 of 2 runs, mean -1.000")


def test_layers_that_did_not_move_are_ties(summarise):
    rows = [layers("inf", 2, "inf", samples=n) for n in (500, 2000)]
    line = "  T      positive in 0 of 2 runs, mean +0.000 (one seed, no interval)"
    assert line in lines_of(summarise(rows))


# Bad input


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("transferability", "inf", "inf is not finite"),
        ("T l3", "", "the value is missing; fill it in"),
        ("T l3", "nan", "nan is not finite"),
        ("steps", "0", "0 has no logarithm; it must be above 0"),
        ("probe_loss", "", "the value is missing"),
    ],
)
def test_wrong_cell_of_a_study_is_one_line(summarise, tmp_path, column, cell, message):
    code, out, err = summarise([row(seed=7), row(**{column: cell})])
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {tmp_path / 'r.csv'} line 3 (X), column {column}: {message}")


def test_run_that_is_there_twice_and_table_of_something_else_are_one_line(summarise, tmp_path):
    code, out, err = summarise([row(), row(samples="5e2", lr="1e-2")])
    assert (code, out) == (2, "")
    assert err == (
        f"error: {tmp_path / 'r.csv'} line 3 (X) is of the same run as line 2: seed 0, samples "
        "5e2, steps 200; remove one of them\n"
    )
    code, out, err = summarise(["X,1"], "dataset,G")
    assert (code, out) == (2, "")
    assert "is not the table of a study: it has no column start" in err
