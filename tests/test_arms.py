"""T of a study's runs in which one thing is changed, beside the runs in which nothing is."""

from findings import arms
from findings.table import read_table

HEADER = (
    "dataset,start,samples,classes,steps,batch_size,lr,weight_decay,a_sha256,seed,transferability"
)


def summary(path, rows):
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return list(arms.summary(read_table(path)))


def row(seed, t, *, start="theta_A", samples=8000, steps=800, classes=10, batch=128, decay="1e-4"):
    return f"X,{start},{samples},{classes},{steps},{batch},0.01,{decay},aa,{seed},{t}"


def test_arms_are_compared_with_the_run_of_the_same_seed_images_and_steps(tmp_path):
    rows = [row(seed, 10 * (seed + 1)) for seed in range(3)]
    # Another number of images or steps, and the null, are not what an arm is compared with.
    rows += [row(seed, 500, samples=500) for seed in range(3)]
    rows += [row(seed, 900, steps=200) for seed in range(3)]
    rows += [row(0, 7, start="null", batch=32)]
    # The same number, written in another way, is no change.
    rows += [row(3, 40, decay="0.0001")]
    # Ratios 0.4, 0.5, 0.6: sd 0.1, t(0.975, 2) = 4.303.
    rows += [row(seed, (4 + seed) * (seed + 1), batch=32) for seed in range(3)]
    rows += [row(0, 20, classes=2, decay=0)]
    rows += [row(4, 1, classes=5)]  # no run beside it
    assert summary(tmp_path / "r.csv", rows) == [
        "  batch_size 32: T 10.67 beside 20.00 (N 8000, S 800), ratio 0.500 "
        "(95 % 0.252 ... 0.748, 3 seeds)",
        "  classes 2, weight_decay 0: T 20.00 beside 10.00 (N 8000, S 800), ratio 2.000 (one seed)",
    ]


def test_without_arms_or_runs_from_theta_a_nothing_is_said(tmp_path):
    assert summary(tmp_path / "r.csv", [row(0, 10), row(1, 11)]) == []
    assert summary(tmp_path / "r.csv", [row(0, 10, start="null")]) == []
