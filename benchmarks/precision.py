"""T per layer with mixed precision against T without, beside what another seed changes.

    for seed in 0 1 2; do for amp in off bf16; do
        python finetune.py --amp $amp --seed $seed -b ./${amp}_seed$seed.pth ...
    done; done
    python cal_transferability.py -r R.pth -a A.pth -b *_seed?.pth --json amp.json --no_plot
    python benchmarks/precision.py amp.json

Reads the JSON of step 3, whose files are named PRECISION_seedN.pth. Per layer and for the mean: T
with --amp off, averaged over the seeds, their standard deviation, and the difference that each
precision makes at the same seed (mean over the seeds; in per cent of T, as is the deviation).
"""

import json
import re
import statistics
import sys
from pathlib import Path


def read(file: Path) -> dict[str, dict[int, dict[str, float]]]:
    """Precision -> seed -> layer -> T; "mean" is the overall value."""
    values: dict[str, dict[int, dict[str, float]]] = {}
    for result in json.loads(file.read_text(encoding="utf-8"))["results"]:
        precision, seed = re.fullmatch(r"(.+)_seed(\d+)", Path(result["b"]).stem).groups()
        layers = {x["name"]: x["transferability"] for x in result["layers"] if x["in_mean"]}
        layers["mean"] = result["transferability"]
        values.setdefault(precision, {})[int(seed)] = layers
    return values


def main() -> None:
    values = read(Path(sys.argv[1]))
    off = values.pop("off")
    print("| layer | T, off | s.d. of seeds, % |", end="")
    print("".join(f" {name} - off, % (n = {len(runs)}) |" for name, runs in values.items()))
    print("|---|---|---|" + "---|" * len(values))
    for layer in next(iter(off.values())):
        of_seeds = [run[layer] for run in off.values()]
        mean = statistics.mean(of_seeds)
        row = f"| {layer} | {mean:.2f} | {100 * statistics.stdev(of_seeds) / mean:.2f} |"
        for runs in values.values():
            changes = [run[layer] / off[seed][layer] - 1 for seed, run in runs.items()]
            row += f" {100 * statistics.mean(changes):+.2f} |"
        print(row)


if __name__ == "__main__":
    main()
