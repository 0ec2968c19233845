"""G, Frechet distance and D: on features of known distributions, and through the command."""

import csv
import re

import drawn_images
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from console import run
from findings import __main__ as findings
from findings import factors
from findings.factors import COLUMNS, KEY
from findings.features import features, load_network
from findings.gap import Moments, bandwidth2, block_layout, frechet, gap, mmd2, scale_of
from findings.reader import upsert
from findings.variance import GROUPS, ClassSums, diversity
from findings.variants import CHANGES
from models import build, checkpoint
from models.checkpoint import Checkpoint
from safe_io import sha256


def normal(n, p, *, seed):
    """Independent standard normal numbers, float64 [n, p]."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, p)))


def batches(phi, size=97):
    """As `features` gives them."""
    for indices in torch.arange(len(phi)).split(size):
        yield indices, phi[indices]


def measure(s, b, labels=None, *, seed=0):
    """The columns that are measured of features B, source features S."""
    labels = torch.arange(len(b)) % 4 if labels is None else labels
    source = factors.measure_source(batches(s), len(s), seed=seed)
    return factors.measure_target(batches(b), labels, int(labels.max()) + 1, source, seed=seed)[0]


def sums_of(z, labels, classes=None):
    sums = ClassSums(labels, classes or int(labels.max()) + 1)
    for indices, part in batches(z, 7):
        sums.add(indices, part)
    return sums


# --- G ---


def closed_form(shift2, h2, p):
    """Squared MMD between N(0, I) and N(shift, I) of p dimensions; shift2: ||shift||^2."""
    return 2 * (h2 / (h2 + 2)) ** (p / 2) * (1 - np.exp(-shift2 / (2 * (h2 + 2))))


def test_mmd2_is_the_sum_over_pairs():
    x, y, h2 = normal(5, 3, seed=0), normal(5, 3, seed=1) + 1, 0.7

    def k(a, b):
        return float(torch.exp(-(a - b).square().sum() / (2 * h2)))

    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(k(a, b) for a in x for b in y) / 25
    assert mmd2(x, y, h2) == pytest.approx(within - 2 * across, abs=1e-14)


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_shifted_normal_distributions_have_the_closed_form(shift):
    p, h2 = 6, 3.0
    x, y = normal(5000, p, seed=2), normal(5000, p, seed=3)
    y[:, 0] += shift
    found = gap(x, y, h2)
    assert (found.blocks, found.block_size) == (20, 250)
    assert abs(found.value - closed_form(shift**2, h2, p)) < 3 * found.error
    # Precise enough to tell the shifts from each other.
    assert found.error < 0.003


@pytest.mark.parametrize("seed", range(5))
def test_source_has_no_gap_to_its_other_half(seed):
    phi = normal(4000, 32, seed=seed).exp()
    found = measure(phi[::2], phi[1::2], seed=seed)
    assert (found["G_blocks"], found["G_block_size"]) == (8, 250)
    assert abs(found["G"]) < 3 * found["G_error"]


def test_g_does_not_depend_on_the_number_of_images():
    p, phi = 8, {}
    for n in (250, 1000, 4000):
        source = factors.measure_source(batches(normal(n, p, seed=n)), n, seed=0)
        phi[n] = gap(source.scale.z(source.phi), source.scale.z(normal(n, p, seed=n + 1) + 0.7), 1)
    layouts = [(found.blocks, found.block_size) for found in phi.values()]
    assert layouts == [(4, 62), (4, 250), (16, 250)]
    truth = closed_form(0.7**2 * p, p, p)
    for n, found in phi.items():
        assert abs(found.value - truth) < 3 * found.error, n
        assert found.value == pytest.approx(truth, rel=0.15)


def test_errors_of_blocks_tell_the_spread_of_g():
    found = [
        gap(normal(1000, 8, seed=i), normal(1000, 8, seed=1000 + i) + 0.3, 4.0) for i in range(60)
    ]
    spread = np.std([g.value for g in found], ddof=1)
    assert np.sqrt(np.mean([g.error**2 for g in found])) == pytest.approx(spread, rel=0.25)


def test_blocks_are_drawn_by_side_and_seed():
    """Else S and B of the same images would be compared each with itself, at distance 0."""
    phi = normal(4000, 32, seed=0)
    source = factors.measure_source(batches(phi), len(phi), seed=0)
    z = source.scale.z(source.phi)
    same = gap(z, z, source.bandwidth2).value
    found = [measure(phi, phi, seed=seed)["G"] for seed in (0, 1)]
    assert same < 0
    assert max(map(abs, found)) < abs(same) / 2
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("source", "target", "layout"),
    [
        (50_000, 50_000, (250, 20)),
        (50_000, 3060, (250, 12)),
        (1000, 1249, (250, 4)),
        (999, 5000, (249, 4)),
        (43, 5000, (10, 4)),
        (40, 40, (10, 4)),
    ],
)
def test_block_layout(source, target, layout):
    assert block_layout(source, target) == layout
    assert block_layout(target, source) == layout


def test_ruler_depends_on_the_source_alone():
    s = normal(3000, 5, seed=0)
    rulers = {
        factors.measure_source(batches(s, size), len(s), seed=seed).bandwidth2
        for seed, size in ((0, 97), (1, 97), (2, 3000))
    }
    assert max(rulers) == pytest.approx(min(rulers), rel=1e-12)
    # Of all pairs, where there are at most 2,000 images.
    z = normal(201, 5, seed=1)
    pairs = [(z[i] - z[j]).square().sum() for i in range(201) for j in range(i)]
    assert bandwidth2(z) == pytest.approx(float(torch.stack(pairs).median()) / 2)


def test_scale_is_that_of_the_source_however_far_from_zero():
    phi = normal(500, 7, seed=0) * torch.arange(1, 8) + 1e6
    moments = Moments()
    for _, part in batches(phi, 33):
        moments.add(part)
    z = scale_of(moments).z(phi)
    assert float(z.mean(0).abs().max()) < 1e-9
    assert float(z.square().sum()) / 499 == pytest.approx(1, abs=1e-9)
    constant = Moments()
    constant.add(torch.ones(9, 2))
    with pytest.raises(factors.InputError, match="features of all source images are the same"):
        scale_of(constant)


@given(
    factor=st.floats(1e-3, 1e3),
    shift=st.floats(-1e3, 1e3),
    turn=st.integers(0, 10_000),
)
def test_scaling_shifting_and_rotating_phi_changes_nothing(factor, shift, turn):
    s, b = normal(120, 6, seed=0).exp(), normal(100, 6, seed=1) * 2 + 0.5
    rotation = torch.linalg.qr(normal(6, 6, seed=turn)).Q
    before = measure(s, b)
    after = measure(*((phi @ rotation * factor + shift) for phi in (s, b)))
    assert after == pytest.approx(before, rel=1e-6, abs=1e-9)


# --- Frechet distance ---


def with_moments(n, mean, deviation, *, seed):
    """Rows whose sample mean and covariance are exactly `mean` and diag(deviation^2)."""
    x = normal(n, len(mean), seed=seed)
    x = torch.linalg.qr(x - x.mean(0)).Q * np.sqrt(n - 1)
    return x * torch.tensor(deviation) + torch.tensor(mean)


@pytest.mark.parametrize("n", [12, 900])
def test_frechet_distance_of_diagonal_normal_distributions(n):
    x = with_moments(n, [0.0, 0.0, 5.0], [1.0, 2.0, 0.5], seed=0)
    y = with_moments(n, [2.0, 0.0, 5.0], [3.0, 1.0, 0.5], seed=1)
    # ||difference of means||^2 + sum of squared differences of standard deviations
    assert frechet(x, y) == (pytest.approx(4 + 4 + 1, abs=1e-9), n)


def test_frechet_distance_is_the_one_with_matrix_roots():
    x, y = normal(60, 5, seed=0), normal(60, 5, seed=1) @ normal(5, 5, seed=2) + 1
    c_x, c_y = torch.cov(x.T), torch.cov(y.T)
    values, vectors = torch.linalg.eigh(c_x)
    root = vectors * values.sqrt() @ vectors.T
    middle = torch.linalg.eigvalsh(root @ c_y @ root).sqrt().sum()
    expected = (x.mean(0) - y.mean(0)).square().sum() + c_x.trace() + c_y.trace() - 2 * middle
    assert frechet(x, y) == (pytest.approx(float(expected), rel=1e-9), 60)


def test_frechet_distance_of_identical_sets_is_zero_also_in_many_dimensions():
    x = normal(50, 200, seed=0)
    assert frechet(x, x) == (pytest.approx(0, abs=1e-10), 50)


def test_frechet_distance_is_of_equally_many_images():
    x, y = normal(3000, 3, seed=0), normal(1500, 3, seed=1)
    assert frechet(x, y)[1] == 1000
    assert frechet(x, y[:300]) == frechet(x[:300], y)
    # Biased upward as p / n.
    assert frechet(x[:100], y[:100])[0] > frechet(x, y)[0] > 0


# --- D ---


def classes_of_normal_distributions(sizes, deviations, p, *, seed):
    """z and labels; class c is at 10 c with covariance deviations[c]^2 I."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    z = normal(len(labels), p, seed=seed) * torch.tensor(deviations)[labels][:, None]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    return (z + 10 * labels[:, None])[order], labels[order]


@pytest.mark.parametrize("sizes", [(20, 10, 15), (400, 100, 37)])
def test_d_of_normal_classes_of_known_variance(sizes):
    """Delete-one, and groups of unlike sizes: value, error and the spread of the value agree."""
    deviations, p = (0.5, 1.0, 2.0), 4
    found = []
    for seed in range(200):
        z, labels = classes_of_normal_distributions(sizes, deviations, p, seed=seed)
        found.append(diversity(sums_of(z, labels)))
    truth = p * sum(d**2 for d in deviations) / 3
    # The variance of a sample variance of p coordinates is 2 p sigma^4 / (n - 1).
    spread = (
        np.sqrt(sum(2 * p * d**4 / (n - 1) for d, n in zip(deviations, sizes, strict=True))) / 3
    )
    values = np.array([x.D for x in found])
    assert values.mean() == pytest.approx(truth, abs=4 * spread / np.sqrt(200))
    assert values.std() == pytest.approx(spread, rel=0.2)
    assert np.sqrt(np.mean([x.D_error**2 for x in found])) == pytest.approx(spread, rel=0.2)
    shares = np.array([x.share for x in found])
    assert np.sqrt(np.mean([x.share_error**2 for x in found])) == pytest.approx(
        shares.std(), rel=0.25
    )


def plain_diversity(z, labels):
    """(D, share) as the formulas read."""
    parts = [z[labels == c] for c in labels.unique()]
    d = torch.stack([x.var(0).sum() for x in parts if len(x) > 1]).mean()
    return np.array([float(d), float(d / z.var(0).sum())])


@pytest.mark.parametrize(
    "sizes", [(3, 5, 20), (2, 7, 4), (6, 1, 3), (2, 2, 2), (50, 21, 3), (2, 45, 40)]
)
def test_jackknife_is_leaving_out_image_by_image_or_group_by_group(sizes):
    z, labels = classes_of_normal_distributions(sizes, (1.0, 0.3, 2.0), 3, seed=4)
    values, squares = plain_diversity(z, labels), np.zeros(2)
    for c, n in enumerate(sizes):
        members = (labels == c).nonzero().flatten()
        groups = min(n, GROUPS) if n > 1 else 0
        without = []
        for h in range(groups):
            rest = torch.ones(len(z), dtype=torch.bool)
            rest[members[h::GROUPS]] = False
            without.append(plain_diversity(z[rest], labels[rest]))
        if groups:
            centre = values if n == 2 else np.mean(without, axis=0)
            squares += (groups - 1) / groups * ((without - centre) ** 2).sum(0)
    found = diversity(sums_of(z, labels))
    assert (found.D, found.share) == pytest.approx(tuple(values))
    assert (found.D_error, found.share_error) == pytest.approx(tuple(np.sqrt(squares)))
    assert found.classes.tolist() == [c for c in range(3) if sizes[c] > 1]


def test_d_does_not_suffer_where_the_target_is_far_from_the_source():
    z, labels = classes_of_normal_distributions((30, 30), (1.0, 1.0), 4, seed=6)
    near, far = (diversity(sums_of(z + shift, labels)) for shift in (0, 1e4))
    assert tuple(far[:4]) == pytest.approx(tuple(near[:4]), rel=1e-6)


def test_error_is_nan_where_nothing_can_be_left_out():
    found = diversity(sums_of(normal(3, 2, seed=0), torch.tensor([0, 0, 1])))
    assert found.D > 0
    assert np.isnan(found.D_error)


# --- The network and the command ---


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Class folders: source; plain, drawn like the source; and changed copies of plain."""
    folder = tmp_path_factory.mktemp("images")
    drawn_images.draw(folder / "source", classes=4, train_per_class=5, val_per_class=100)
    drawn_images.draw(folder / "plain", classes=4, train_per_class=100, val_per_class=2, seed=1)
    assert run(lambda: findings.main(["variants", str(folder / "plain"), str(folder)])) == 0
    return folder


@pytest.fixture(scope="module")
def theta(tmp_path_factory):
    """File of a narrow network with random parameters, whose features tell images apart."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("theta") / "a.pth"
    checkpoint.write(path, build("resnet50_w8", 4).state_dict())
    return path


def call(images, theta, table, *options, **changes):
    """Exit code of the command."""
    chosen = {
        "-a": theta,
        "--source": "Folder",
        "--source_dir": images / "source",
        "--dataset": "folder",
        "--data_dir": images / "plain",
        "--image_size": 32,
        "--num_workers": 0,
        "--device": "cpu",
        "--csv": table,
    } | changes
    words = ["factors", *options]
    words += [str(word) for pair in chosen.items() if pair[1] is not None for word in pair]
    return run(lambda: findings.main(words))


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_changed_images_are_those_of_the_data_set(images):
    """Of all training and validation images, lossless."""
    for split in ("train", "val"):
        paths = sorted((images / "plain" / split).glob("*/*"))
        for name, change in CHANGES.items():
            assert len(list((images / name / split).glob("*/*.png"))) == len(paths)
            path = paths[-1].relative_to(images / "plain").with_suffix(".png")
            with Image.open(paths[-1]) as image, Image.open(images / name / path) as changed:
                assert np.array_equal(change(image.convert("RGB")), changed)


def test_patches_are_those_of_the_image_in_one_order(images):
    def cut(image):
        pixels = np.asarray(image)
        return [part for row in np.split(pixels, 4) for part in np.split(row, 4, axis=1)]

    orders = set()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
        before = [part.tobytes() for part in cut(pixels)]
        after = [part.tobytes() for part in cut(CHANGES["patches"](Image.fromarray(pixels)))]
        assert sorted(before) == sorted(after)
        orders.add(tuple(after.index(part) for part in before))
    assert len(orders) == 1
    assert orders != {tuple(range(16))}


def test_g_grows_with_blur_greyscale_and_inversion(images, theta, tmp_path, capsys):
    table = tmp_path / "r.csv"
    for name in CHANGES:
        assert call(images, theta, table, **{"--data_dir": images / name}) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    rows = {row["dataset"].removeprefix("Folder:"): row for row in read(table)}
    assert list(rows) == list(CHANGES)
    g, error = (
        {name: float(row[column]) for name, row in rows.items()} for column in ("G", "G_error")
    )
    assert abs(g["unchanged"]) < 5 * error["unchanged"]
    for less, more in (
        ("unchanged", "greyscale"),
        ("unchanged", "inverted"),
        ("unchanged", "blurred_1"),
        ("blurred_1", "blurred_2"),
    ):
        assert g[more] - g[less] > 3 * np.hypot(error[more], error[less]), (less, more)
    # One ruler for all.
    assert len({row["bandwidth2"] for row in rows.values()}) == 1


@pytest.mark.slow  # eight processes
def test_variants_are_measured_each_in_a_process(images, theta, tmp_path, capsys):
    words = [images / "plain", tmp_path / "v", "-a", theta, "--source_dir", images / "source"]
    assert run(lambda: findings.main(["variants", *map(str, words)])) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    labels = [row[0].strip("| ") for row in rows]
    assert labels[2:] == ["all", *CHANGES, "half of the source"]
    assert [row[1] for row in rows[2:]] == ["400"] * (1 + len(CHANGES)) + ["200"]
    assert rows[2][2:6] == rows[3][2:6]  # unchanged
    g, error = map(float, rows[-1][2].split(" +- "))
    assert abs(g) < 5 * error


def test_wrong_arguments_of_variants_are_one_line(images, theta, tmp_path, capsys):
    plain, out = images / "plain", tmp_path / "v"
    (tmp_path / "there" / "unchanged").mkdir(parents=True)
    (tmp_path / "bad" / "train" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "train" / "a" / "x.png").write_text("no image")
    (tmp_path / "bad" / "val" / "a").mkdir(parents=True)
    for words, message in (
        ([plain, out, "-a", theta], "-a and --source_dir are needed together"),
        ([plain / "train", out], "no class folders in .*train; it must hold CLASS/IMAGE"),
        ([plain, tmp_path / "there"], "cannot make .*unchanged: File exists; give another DST"),
        ([tmp_path / "bad", out], r"cannot read .*x\.png"),
    ):
        code = run(lambda words=words: findings.main(["variants", *map(str, words)]))
        assert_refused(code, capsys, message)


def test_row_and_printed_table(images, theta, tmp_path, capsys):
    table = tmp_path / "r.csv"
    assert call(images, theta, table, "--max_samples", "200", "--seed", "3") == 0
    (row,) = read(table)
    assert list(row) == list(COLUMNS)
    expected = {
        "dataset": "Folder:plain",
        "checkpoint": "a.pth",
        "sha256": sha256(theta),
        "arch": "resnet50_w8",
        "source": "Folder:source",
        "image_size": "32",
        "samples": "200",
        "classes": "4",
        "seed": "3",
        "G_blocks": "4",
        "G_block_size": "50",
        "frechet_n": "200",
    }
    assert {name: row[name] for name in expected} == expected
    assert 0 < float(row["D_share_error"]) < float(row["D_share"]) < 1.1
    out = capsys.readouterr().out
    assert "4 blocks of 50 images a side" in out
    assert re.search(
        rf"  D +{float(row['D']):.4f} \+- {float(row['D_error']):.4f} +mean over 4", out
    )
    assert f"{table}: row added" in out


def test_values_are_those_of_all_features_at_once(images, theta, tmp_path):
    table = tmp_path / "r.csv"
    assert call(images, theta, table, **{"--batch_size": 37}) == 0
    (row,) = read(table)
    network = build("resnet50_w8", 4)
    network.load_state_dict(torch.load(theta))
    network.fc = torch.nn.Identity()
    network.eval()
    phi, labels = {}, {}
    for name, split in (("source", "val"), ("plain", "train")):
        paths = sorted((images / name / split).glob("*/*"))
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.225
        with torch.no_grad():
            phi[name] = network(x).double()
        names = [path.parent.name for path in paths]
        labels[name] = torch.tensor([sorted(set(names)).index(one) for one in names])
    s = phi["source"]
    unit = (s.var(0).mean() * s.shape[1]).sqrt()
    z, z_b = ((x - s.mean(0)) / unit for x in (s, phi["plain"]))
    assert float(row["bandwidth2"]) == pytest.approx(
        float(torch.pdist(z).square().median()) / 2, rel=1e-2
    )
    d, share = plain_diversity(z_b, labels["plain"])
    assert float(row["D"]) == pytest.approx(d, rel=1e-2)
    assert float(row["D_share"]) == pytest.approx(share, rel=1e-2)


def test_same_row_is_replaced_and_others_and_added_columns_stay(images, theta, tmp_path, capsys):
    table = tmp_path / "r.csv"
    for options in ((), ("--seed", "1"), ("--max_samples", "100"), ("--max_classes", "3")):
        assert call(images, theta, table, *options) == 0
    before = read(table)
    assert [row["samples"] for row in before] == ["400", "400", "100", "300"]
    header, *lines = table.read_text().splitlines()
    lines = [f"{line},{i}.5" for i, line in enumerate(lines)]
    table.write_text("\n".join([f"{header},transferability", *lines]) + "\n")
    assert call(images, theta, table, "--seed", "1", "--batch_size", "64") == 0
    assert f"{table}: row replaced" in capsys.readouterr().out
    after = read(table)
    assert [row.pop("transferability") for row in after] == ["0.5", "1.5", "2.5", "3.5"]
    assert float(after[1]["G"]) == pytest.approx(float(before.pop(1)["G"]), abs=1e-4)
    assert [after[i] for i in (0, 2, 3)] == before

    other = tmp_path / "other.pth"
    checkpoint.write(other, build("resnet50_w8", 4).state_dict())
    assert call(images, other, table) == 0
    assert read(table)[-1]["transferability"] == ""
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("column", ["image_size", "source"])
def test_row_of_another_image_size_or_source_is_another_row(column, tmp_path):
    table, row = tmp_path / "r.csv", dict.fromkeys(COLUMNS, "1")
    assert [upsert(table, row | {column: x}, key=KEY) for x in ("32", "64", "32")] == [0, 0, 1]
    assert [row[column] for row in read(table)] == ["32", "64"]


def test_phi_of_a_vit_is_the_input_of_its_last_linear_map(tmp_path):
    network = build("vit_small", 7, image_size=32)
    theta = Checkpoint(tmp_path / "v.pth", network.state_dict(), "")
    model, head = load_network(theta, "vit_small", image_size=32)
    assert head == "heads.head"
    network.heads = torch.nn.Identity()
    (indices, phi), *_ = features(
        model, head, drawn(3), name="x", batch_size=3, num_workers=0, device=torch.device("cpu")
    )
    assert phi.shape == (3, 384)
    assert indices.tolist() == [0, 1, 2]
    pixels = torch.stack(drawn(3).images([0, 1, 2]))
    with torch.no_grad():
        assert torch.allclose(phi, network.eval()((pixels / 255 - 0.5) / 0.225), atol=1e-4)


def test_phi_of_a_classifier_that_is_a_convolution_is_the_mean_over_positions(tmp_path):
    theta = Checkpoint(tmp_path / "s.pth", build("squeezenet1_1", 5).state_dict(), "")
    model, head = load_network(theta, "squeezenet1_1", image_size=64)
    ((_, phi),) = features(
        model, head, drawn(3, 64), name="x", batch_size=3, num_workers=0, device="cpu"
    )
    assert phi.shape == (3, 512)


def drawn(number, size=32):
    """So many images of noise, in memory."""
    from datasets.images import ImageArray

    pixels = np.random.default_rng(0).integers(0, 256, (number, size, size, 3), dtype=np.uint8)
    return ImageArray(pixels, [0] * number, image_size=size)


def test_unreadable_image_is_left_out_and_the_others_keep_their_labels(
    images, theta, tmp_path, capsys
):
    """As if it were not there, for G and D alike."""
    values = []
    for name, content in (("without", None), ("with", b"no image")):
        drawn_images.draw(tmp_path / name, classes=4, train_per_class=30, val_per_class=1)
        path = tmp_path / name / "train" / "grating_01" / "000.jpg"
        path.unlink()
        if content:
            path.write_bytes(content)
        changes = {"--data_dir": tmp_path / name}
        assert call(images, theta, tmp_path / "r.csv", **changes) == 0
        values.append(read(tmp_path / "r.csv")[-1])
    assert re.search(r"warning: cannot read \S+000.jpg", capsys.readouterr().err)
    assert [row["frechet_n"] for row in values] == ["119", "119"]
    assert float(values[0]["D"]) == pytest.approx(float(values[1]["D"]), rel=1e-5)


def test_classes_of_one_image_are_named_and_left_out(images, theta, tmp_path, capsys):
    drawn_images.draw(tmp_path / "task", classes=3, train_per_class=30, val_per_class=1)
    lonely = tmp_path / "task" / "train" / "grating_01"
    for path in sorted(lonely.iterdir())[1:]:
        path.unlink()
    assert call(images, theta, tmp_path / "r.csv", **{"--data_dir": tmp_path / "task"}) == 0
    out, err = capsys.readouterr()
    assert "D is without class grating_01, of fewer than two images" in err
    assert "mean over 2 of 3 classes" in out
    assert read(tmp_path / "r.csv")[0]["classes"] == "3"


# --- Bad input ---


def assert_refused(code, capsys, message):
    err = capsys.readouterr().err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(errors) == 1, err
    assert re.search(message, errors[0]), err
    assert "Traceback" not in err


def test_theta_a_that_is_not_finite_is_named(images, tmp_path, capsys):
    state = build("resnet50_w8", 4).state_dict()
    state["layer4.2.bn3.bias"][3] = float("nan")
    checkpoint.write(tmp_path / "a.pth", state)
    code = call(images, tmp_path / "a.pth", tmp_path / "r.csv")
    assert_refused(code, capsys, r"a\.pth: layer4\.2\.bn3\.bias holds NaN or infinity")
    assert not (tmp_path / "r.csv").exists()


def test_source_and_target_of_different_sizes(images, theta, tmp_path, capsys):
    """Without --image_size every data set comes at its own."""
    changes = {"--image_size": None, "--dataset": "CIFAR-10"}
    changes["--data_dir"] = tmp_path / "cifar"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "cifar" / split / name).mkdir(parents=True)
            for i in range(20):
                Image.new("RGB", (32, 32)).save(tmp_path / "cifar" / split / name / f"{i}.png")
    code = call(images, theta, tmp_path / "r.csv", **changes)
    assert_refused(code, capsys, "Folder have 224 pixels a side and those of CIFAR-10 32.*--image")


def test_too_few_images_and_no_class_of_two(images, theta, tmp_path, capsys):
    code = call(images, theta, tmp_path / "r.csv", "--max_samples", "39")
    assert_refused(code, capsys, "400 source and 39 target images .* 4 blocks of 10 images need 40")
    code = call(images, theta, tmp_path / "r.csv", "--max_samples", "4")
    assert_refused(code, capsys, "no class of folder has two training images, so there is no D")
    (tmp_path / "empty" / "train" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "val" / "a").mkdir(parents=True)
    for option in ("--data_dir", "--source_dir"):
        code = call(images, theta, tmp_path / "r.csv", **{option: tmp_path / "empty"})
        assert_refused(code, capsys, "no images in ")


def test_file_without_the_classifier(images, theta, tmp_path, capsys):
    state = torch.load(theta)
    checkpoint.write(tmp_path / "a.pth", {k: v for k, v in state.items() if "fc" not in k})
    code = call(images, tmp_path / "a.pth", tmp_path / "r.csv")
    assert_refused(code, capsys, "a.pth has no classifier fc of resnet50_w8, whose input")
    code = call(images, theta, tmp_path / "r.csv", "--arch", "resnet18")
    assert_refused(code, capsys, "a.pth is a resnet50_w8, not a resnet18; leave --arch out")
    checkpoint.write(tmp_path / "u.pth", {"weight": torch.ones(2, 2)})
    code = call(images, tmp_path / "u.pth", tmp_path / "r.csv")
    assert_refused(code, capsys, "u.pth is of no known network; name it with --arch")


def test_source_of_other_classes_is_a_warning(images, tmp_path, capsys):
    checkpoint.write(tmp_path / "a.pth", build("resnet50_w8", 6).state_dict())
    assert call(images, tmp_path / "a.pth", tmp_path / "r.csv") == 0
    assert "classifier of 6 classes, but Folder in " in capsys.readouterr().err


def test_other_source_images_under_the_same_name(images, theta, tmp_path, capsys):
    table = tmp_path / "r.csv"
    assert call(images, theta, table, **{"--data_dir": images / "greyscale"}) == 0
    before = table.read_bytes()
    # The darkest of all sources, but a folder of the same name.
    for path in (images / "source").glob("*/*/*"):
        copy = tmp_path / "source" / path.relative_to(images / "source").with_suffix(".png")
        copy.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.point(lambda level: level // 9).save(copy)
    changes = {"--source_dir": tmp_path / "source"}
    code = call(images, theta, table, **changes)
    assert_refused(code, capsys, "r.csv has the bandwidth2 .* these source images give .* not be")
    assert table.read_bytes() == before
    # The only row of its source may be made anew.
    assert call(images, theta, table, **changes, **{"--data_dir": images / "greyscale"}) == 0
    table.write_text(table.read_text().replace(read(table)[0]["bandwidth2"], "wide"))
    code = call(images, theta, table, **changes)
    assert_refused(code, capsys, "column bandwidth2: 'wide' is not a number")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dataset,G,D\nCIFAR-10,1,2\n", "not a table of factors: it has no column checkpoint"),
        (",".join(COLUMNS).encode() + b"\nCIFAR-10,a.pth\n", "has 2 cells; the header has 21"),
        (None, "cannot write .*r.csv: it is a folder"),
    ],
)
def test_file_that_is_no_table(images, theta, tmp_path, capsys, content, message):
    table = tmp_path / "r.csv"
    table.mkdir() if content is None else table.write_bytes(content)
    assert_refused(call(images, theta, table), capsys, message)
    assert content is None or table.read_bytes() == content


def test_table_in_a_missing_folder_and_empty_file(images, theta, tmp_path, capsys):
    code = call(images, theta, tmp_path / "no" / "r.csv")
    assert_refused(code, capsys, "cannot write .*no does not exist; create it first")
    (tmp_path / "r.csv").touch()
    assert call(images, theta, tmp_path / "r.csv", "--max_samples", "40") == 0
    assert len(read(tmp_path / "r.csv")) == 1


def test_gpu_without_memory_is_one_line(images, theta, tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    monkeypatch.setattr("torchvision.models.ResNet.forward", full)
    code = call(images, theta, tmp_path / "r.csv")
    assert_refused(code, capsys, "not enough memory for a batch; give a smaller --batch_size")
