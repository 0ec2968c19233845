"""What the remade table says: H1 to H5 as they were fixed, and what was only to be described.

    python -m findings table

prints, from findings/table_results.csv alone: the table; H1 to H5 with their intervals over data
sets, and their decisions after Holm's correction; the sensitivities; what was to be estimated
without a test; the paper's regression on these rows; and, called exploratory, what was seen
afterwards. findings/TABLE.md has the question, the design and the hypotheses. With --out it draws
the figures.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS

from console import ArgumentParser, say

from . import hypotheses
from .hypotheses import FAMILY, LEVEL, Test, View, holm, leave_one_out, sensitivities
from .published import EQUATIONS, design, spearman
from .reader import RANDOM, Table, check_columns, is_number, read_table
from .regression import mean_interval
from .table_plan import CHANGES, CLASSES, LONG, MERGED

DEFAULT = Path(__file__).with_name("table_results.csv")
NEEDED = ("block", "folder", "start", "labels", "samples", "classes", "steps", "seed", "G", "D")
# Of the table; in brackets the block.
HEADING = (
    *("data set", "N", "K", "G", "D", "T, equal epochs (P)", "T, equal steps (W)"),
    *("T, equal images and steps (E)", "rotation (E)", "agreement (E)", "accuracy % (P)"),
)
BOOTSTRAPS = 9999
# Below this share of common images the agreement of two draws is one of the task.
SHARED = 0.2
VERSIONS = ("cifar10", *(f"cifar10_{change}" for change in CHANGES))


def read_view(table: Table) -> View:
    """The rows, numbers as numbers. Raises InputError for a table of something else."""
    check_columns(table, NEEDED, "the table of several blocks")
    rows = table.rows.copy()
    for column in rows:
        cells = rows[column]
        if all(not cell or is_number(cell) for cell in cells) and not column.endswith("sha256"):
            rows[column] = pd.to_numeric(cells)
    rows["start"] = rows["start"].replace(dict.fromkeys(RANDOM, RANDOM[0]))
    return View(rows)


# --- The table ---


def table_lines(view: View) -> Iterator[str]:
    """A row per data set, T with its standard error over seeds, in the order of N."""
    yield f"| {' | '.join(HEADING)} |"
    yield "|---" * len(HEADING) + "|"
    equal = view.select("E").groupby("folder")
    whole = view.select("P").groupby("folder")
    for name, images in view.whole().sort_values(kind="stable").items():
        first = equal.get_group(name)
        row = first.iloc[0]
        cells = [
            name,
            f"{images:,.0f}",
            f"{row['classes']:.0f}",
            f"{row['G']:.3f}",
            f"{row['D']:.2f}",
            *(with_error(of_block(view, block, name)) for block in "PWE"),
            f"{first['rotation'].mean():.1f}",
            f"{row['agreement_01']:.2f}" if pd.notna(row["agreement_01"]) else "-",
            f"{whole.get_group(name)['val_acc'].mean():.1f}",
        ]
        yield f"| {' | '.join(cells)} |"


def of_block(view: View, block: str, name: str) -> pd.Series:
    """T of the seeds of a data set in a block; of a set that is not in W, those in E."""
    rows = view.select(block)
    rows = rows[rows["folder"] == name]
    return rows["transferability"] if len(rows) or block != "W" else of_block(view, "E", name)


def with_error(values: pd.Series) -> str:
    """Mean and standard error over seeds; of one seed the value."""
    if not len(values):
        return "-"
    error = f" +- {values.std() / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{error}"


# --- Hypotheses ---


def hypothesis_lines(view: View) -> Iterator[str]:
    """H1 to H5: numbers, decisions, and whether they depend on PACS being four sets."""
    tests = {name: attempt(view, test) for name, test in FAMILY.items()}
    adjusted = holm(tests)
    for name, test in tests.items():
        yield ""
        yield f"{name}: {FAMILY_WORDS[name]}"
        if test is None:
            yield "  not decided: its runs are not all there"
            continue
        yield from (f"  {line}" for line in test.lines)
        holds = adjusted[name] < LEVEL
        one = attempt(sensitivities(view)["PACS as one set"], FAMILY[name])
        lost = one is None or one.p >= LEVEL or one.effect * test.effect < 0
        robust = "; NOT ROBUST: lost with PACS as one set" if holds and lost else ""
        decision = "holds" if holds else "DOES NOT HOLD"
        yield f"  {decision}: p {test.p:.2g}, {adjusted[name]:.2g} after Holm's correction{robust}"
    yield ""
    yield "H5 (theory of weight decay; counted, outside the family)"
    if len(view.select("A2")):
        yield from (f"  {line}" for line in hypotheses.h5_lines(view))
    else:
        yield "  not decided: its runs are not all there"


FAMILY_WORDS = {
    "H1": "T falls with N at equal epochs, hardly at equal steps",
    "H2-G": "T depends on the domain gap (K the same)",
    "H2-K": "T depends on the number of classes (G the same)",
    "H3": "the more classes, the more T falls with depth",
    "H4a": "T is larger with random labels",
    "H4b": "seeds agree more from theta_A than from its weights permuted",
}


def attempt(view: View, test: Callable[[View], Test]) -> Test | None:
    """The result of a test; None where its runs are not there."""
    try:
        result = test(view)
    except (KeyError, ValueError, IndexError):
        return None
    return result if math.isfinite(result.p) else None


def sensitivity_lines(view: View) -> Iterator[str]:
    """Effect and uncorrected p of every hypothesis under other readings of the rows."""
    yield "sensitivities, uncorrected: effect (p)"
    for name, test in FAMILY.items():
        parts = [f"as fixed {short(attempt(view, test))}"]
        for words, other in sensitivities(view).items():
            parts.append(f"{words} {short(attempt(other, test))}")
        without = [attempt(other, test) for other in leave_one_out(view)]
        if None not in without:
            effects, p = [x.effect for x in without], [x.p for x in without]
            parts.append(
                f"without one set {min(effects):+.3f} ... {max(effects):+.3f} "
                f"({min(p):.2g} ... {max(p):.2g})"
            )
        yield f"  {name}: {'; '.join(parts)}"


def short(test: Test | None) -> str:
    """Effect and p."""
    return f"{test.effect:+.3f} ({test.p:.2g})" if test else "-"


# --- Described, not tested ---


def described_lines(view: View) -> Iterator[str]:
    """What was to be estimated with intervals only."""
    yield "described, not tested"
    yield from spread_lines(view)
    yield from agreement_lines(view)
    yield from long_lines(view)
    yield from class_lines(view)
    yield from merged_lines(view)
    yield from changed_lines(view)
    yield from rate_lines(view)
    yield from seen_lines(view)


def spread_lines(view: View) -> Iterator[str]:
    """sd of ln T over sets at equal images and steps, beside that at equal epochs."""
    y = pd.concat([view.log_t("E"), view.log_t("P")], axis=1).dropna().to_numpy()
    random = np.random.default_rng(0)
    ratios = [ratio_of_sd(y[random.integers(len(y), size=len(y))]) for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(ratios, [2.5, 97.5])
    yield (
        f"  sd of ln T over sets: {y[:, 0].std(ddof=1):.3f} at equal images and steps, "
        f"{y[:, 1].std(ddof=1):.3f} at equal epochs; ratio {ratio_of_sd(y):.2f} "
        f"(95 % {low:.2f} ... {high:.2f}, bootstrap over {len(y)} sets)"
    )


def ratio_of_sd(y: np.ndarray) -> float:
    """sd of the first column over that of the second."""
    return y[:, 0].std(ddof=1) / y[:, 1].std(ddof=1)


def agreement_lines(view: View) -> Iterator[str]:
    """Levels of agreement, where two draws share few of their images."""
    share = view.select("E").groupby("folder")["samples"].first() / view.whole()
    few = share.index[share < SHARED]
    for words, block, start in (("theta_A", "E", "theta_A"), ("shuffled", "N", "shuffled")):
        values = view.column("agreement_01", block, start=start).reindex(few).dropna()
        if len(values):
            listed = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
            yield f"  agreement of seeds 0 and 1 from {words}, draws sharing under 20 %: {listed}"


def long_lines(view: View) -> Iterator[str]:
    """cifar10 at four times the steps, true and random labels."""
    rows = view.rows[(view.rows["block"] == "N") & (view.rows["steps"] == LONG)]
    for labels, group in rows.groupby("labels", sort=False):
        yield (
            f"  cifar10, S {LONG:,}, {labels} labels: T {with_error(group['transferability'])}, "
            f"agreement {group['agreement_01'].iloc[0]:.2f}"
        )


def class_lines(view: View) -> Iterator[str]:
    """Slope of ln T on ln K for every data set whose classes were drawn."""
    for name in CLASSES:
        drawn = view.select("K")
        drawn = drawn[drawn["folder"].str.match(rf"{name}(_k\d+_s\d)?$")]
        whole = view.select("E")
        rows = pd.concat([drawn, whole[whole["folder"] == name]])
        if len(rows) < 3 or rows["classes"].nunique() < 2:
            continue
        fit = OLS(
            np.log(rows["transferability"].to_numpy(float)),
            np.column_stack([np.ones(len(rows)), np.log(rows["classes"].to_numpy(float))]),
        ).fit()
        yield (
            f"  slope of ln T on ln K, {name}: {hypotheses.slope_words(fit)} over {len(rows)} "
            f"runs, K {rows['classes'].min():.0f} ... {rows['classes'].max():.0f}"
        )


def by_seed(view: View, block: str, folder: str) -> pd.Series:
    """ln T of every seed; {s} in the folder is the seed."""
    rows = view.select(block)
    names = rows["seed"].map(lambda seed: folder.format(s=seed))
    rows = rows[rows["folder"] == names]
    return np.log(pd.Series(rows["transferability"].to_numpy(float), rows["seed"]))


def merged_lines(view: View) -> Iterator[str]:
    """lambda: 1 = the number of classes counts, 0 = the diversity of the images counts."""
    ten = by_seed(view, "E", "cifar10")
    for number in MERGED:
        merged = by_seed(view, "D", f"cifar10_merged{number}_s{{s}}")
        chosen = by_seed(view, "K", f"cifar10_k{number}_s{{s}}")
        values = ((merged - ten) / (chosen - ten)).dropna()
        if len(values):
            yield f"  lambda, ten classes merged into {number}: {over_seeds(values)}"


def changed_lines(view: View) -> Iterator[str]:
    """ln T and G of five versions of cifar10."""
    rows = pd.concat([view.select("E"), view.select("G")]).groupby("folder")
    t, g = rows["transferability"].mean().reindex(VERSIONS), rows["G"].first().reindex(VERSIONS)
    if t.isna().any():
        return
    listed = ", ".join(f"{name} G {g[name]:.3f} T {t[name]:.1f}" for name in VERSIONS)
    yield f"  Spearman of T and G over {len(t)} versions: {spearman(t, g):+.2f} ({listed})"


def rate_lines(view: View) -> Iterator[str]:
    """T at the same sum of rates in half and twice the steps, over that of block E."""
    rows = view.select("F")
    for (folder, steps), group in rows.groupby(["folder", "steps"], sort=False):
        same = by_seed(view, "E", folder)
        values = np.log(group.set_index("seed")["transferability"].astype(float)) - same
        ratios = np.exp(values.dropna())
        yield (
            f"  {folder}, {steps:.0f} steps at rate {group['lr'].iloc[0]:g}: T over that of E "
            f"{', '.join(f'{ratio:.3f}' for ratio in ratios)} by seed (predicted: 0.9 ... 1.1)"
        )


def seen_lines(view: View) -> Iterator[str]:
    """20 classes of the source, from images that theta_A has seen and from others."""
    difference = (
        by_seed(view, "K", "tiny_unseen20_s{s}") - by_seed(view, "K", "tiny_k20_s{s}")
    ).dropna()
    if len(difference):
        yield f"  ln T(unseen) - ln T(seen source images), K 20: {over_seeds(difference)}"


def over_seeds(values: Sequence[float]) -> str:
    """Mean, and the 95 % interval over seeds where there are several."""
    mean, low, high = mean_interval(list(values))
    interval = f"95 % {low:+.3f} ... {high:+.3f} over {len(values)} seeds"
    return f"{mean:+.3f} ({interval if len(values) > 1 else 'one seed'})"


# --- The paper's regression ---


def regression_lines(view: View) -> Iterator[str]:
    """ln T on standardised G, D, ln N, and with ln K, at equal epochs and at equal steps."""
    yield "ln T on standardised predictors: coefficient +- standard error over data sets"
    for network, published in EQUATIONS.items():
        yield f"  published, {network:13} " + "  ".join(
            f"{name} {value:+.2f}"
            for name, value in zip(("G", "D", "ln N"), published[:3], strict=True)
        )
    g, d, k = (view.column(name, "E") for name in ("G", "D", "classes"))
    predictors = {"G": g, "D": d, "ln N": view.log_n(), "ln K": np.log(k)}
    for words, block in (("equal epochs", "P"), ("equal steps", "W")):
        y = view.log_t(block)
        y = y[y.index.isin(predictors["ln N"].index)]
        for names in (("G", "D", "ln N"), tuple(predictors)):
            x = design({name: predictors[name].loc[y.index].to_numpy() for name in names})
            fit = OLS(y.to_numpy(), x).fit()
            yield f"  {words:12} (R2 {fit.rsquared:.2f})      " + "  ".join(
                f"{name} {value:+.2f} +- {error:.2f}"
                for name, value, error in zip(names, fit.params[1:], fit.bse[1:], strict=True)
            )
    correlation = np.corrcoef(d.loc[g.index], np.log(g))[0, 1]
    yield f"  correlation of D and ln G over the sets {correlation:+.2f}"


# --- Seen afterwards ---


def exploratory_lines(view: View) -> Iterator[str]:
    """What was noticed in the rows, and no test of anything."""
    yield "exploratory: seen after the runs"
    more_images = view.log_t("W") - view.log_t("E")
    fit = hypotheses.slope_fit(view.log_n(), more_images, robust=True)
    yield f"  slope on ln N of ln T(whole set) - ln T(896 images), both 420 steps: {words_of(fit)}"
    random = view.log_t("N", labels="random") - view.log_t("E", seed=0)
    log_k = np.log(view.column("classes", "E"))[random.index]
    yield (
        f"  Spearman of ln T(random labels) - ln T(true labels) and ln K: "
        f"{spearman(random, log_k):+.2f} over {len(random)} sets"
    )
    shuffled = view.log_t("N", start="shuffled") - view.log_t("E")
    yield (
        f"  ln T(shuffled start) - ln T: {shuffled.mean():+.3f}, from {shuffled.min():+.3f} to "
        f"{shuffled.max():+.3f} over {len(shuffled)} sets"
    )


def words_of(fit: Any) -> str:
    """The slope of a fit, and over what its interval is."""
    return f"{hypotheses.slope_words(fit)} over {fit.nobs:.0f} sets, HC3"


def lines(view: View) -> Iterator[str]:
    """Everything, section by section."""
    yield from table_lines(view)
    yield from hypothesis_lines(view)
    for section in (sensitivity_lines, described_lines, regression_lines, exploratory_lines):
        yield ""
        yield from section(view)


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings table")
    add = parser.add_argument
    add("table", type=Path, nargs="?", default=DEFAULT, help="(default: table_results.csv)")
    args = parser.parse_args(argv)
    for line in lines(read_view(read_table(args.table))):
        say(line)
