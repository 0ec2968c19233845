"""Signs that a file holds only a part of a network, or a tensor less."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from .blocks import HEAD, Family, Group

STATISTICS = {"running_mean", "running_var"}
NORMALISATION = STATISTICS | {"weight", "bias"}


def missing_parts(
    keys: Iterable[str],
    groups: list[Group],
    weights: Collection[str],
    left_out: Mapping[str, str],
    family: Family,
) -> list[str]:
    """Return a line for each thing that a whole network would have, and this one has not.

    keys: of all tensors. groups: modules of the table, in network order. weights: keys that count.
    left_out: keys that do not, with the reason.
    """
    ignored = {key for key, reason in left_out.items() if reason == "ignored"}
    weights = {*weights, *ignored}
    normalised = {key for key, reason in left_out.items() if reason in ("shortcut", "scale")}
    lines = [
        *halves_of_modules(keys),
        *missing_modules(groups, weights, family),
        *missing_numbers(groups, family),
        *missing_transitions(groups),
        *missing_in_blocks(groups, weights, ignored, family),
        *missing_convolutions(groups, weights | normalised),
    ]
    return list(dict.fromkeys(lines))


def halves_of_modules(keys: Iterable[str]) -> Iterator[str]:
    """Find biases without a weight, and batch normalisations without one of their tensors."""
    modules = defaultdict(set)
    for key in keys:
        module, _, name = key.rpartition(".")
        modules[module].add(name)
    whole = [NORMALISATION & names for names in modules.values() if names >= STATISTICS]
    for module, names in modules.items():
        # A classifier does not count, so half of one is as good as none.
        is_head = all(re.fullmatch(HEAD, part) and part.isalpha() for part in module.split("."))
        expected = {"weight"} if names == {"bias"} and not is_head else set()
        if names & STATISTICS:
            # What the others have: some are without weight and bias.
            expected = max(whole, key=len, default=set())
        for name in sorted(expected - names):
            yield f"{module}.{name} is missing"


def missing_modules(groups: list[Group], weights: Collection[str], family: Family) -> Iterator[str]:
    """Find parts of the table without a module, and modules without a weight."""
    segments = {x.path.segment for x in groups}
    for segment, text in enumerate(family.layers):
        if segment not in segments and not text.startswith("?"):
            yield f"no module is named {text}, as in every {family.name}"
    for x in groups:
        is_norm = x.ends.keys() <= {"weight", "bias"}
        if not is_norm and not any(key in weights for key in x.ends.values()):
            yield f"{x.name} has no weight"


def missing_numbers(groups: list[Group], family: Family) -> Iterator[str]:
    """Find gaps in the numbers of stages and blocks."""
    if family.first is None:
        return
    numbers: dict[tuple, dict[int, str]] = defaultdict(dict)
    for x in groups:
        for depth, number in enumerate(x.numbers):
            # All paths of a segment share the numbers of its stages.
            series = x.path.segment, x.path.rank if depth else None, x.numbers[:depth]
            numbers[series].setdefault(number, x.name)
    for (segment, rank, stage), names in numbers.items():
        # Stages start with the number of the family or the next one; so do blocks, with 0 or 1.
        others = [min(n) for s, n in numbers.items() if s[:2] == (segment, rank)]
        start = min([*others, 1]) if stage else min(min(names), family.first + 1)
        missing = [n for n in range(start, max(names)) if n not in names]
        if missing:
            after = min(n for n in names if n > missing[0])
            yield f"nothing has number {missing[0]}, before {names[after]}"


def missing_transitions(groups: list[Group]) -> Iterator[str]:
    """Find stages without a transition where others have one."""
    stages, transitions = defaultdict(set), defaultdict(dict)
    for x in groups:
        if len(x.numbers) > 1:
            stages[x.path.segment].add(x.numbers[0])
        elif x.numbers:
            transitions[x.path][x.numbers[0]] = x.name
    for path, names in transitions.items():
        # Either the first stage or the last one has none.
        if names.keys() < stages[path.segment] and len(names) < len(stages[path.segment]) - 1:
            missing = sorted(stages[path.segment] - names.keys())
            yield f"stages {missing} have nothing like {min(names.values())}"


def missing_in_blocks(
    groups: list[Group], weights: Collection[str], ignored: Collection[str], family: Family
) -> Iterator[str]:
    """Find tensors that a block lacks and another one, like it otherwise, has."""
    alike = defaultdict(list)
    for x in groups:
        if x.numbers:
            ends = {end: key for end, key in x.ends.items() if key not in ignored}
            alike[x.path].append(x._replace(ends=ends))
    for blocks in alike.values():
        kinds = {frozenset(x.ends): x for x in blocks}
        for x in kinds.values():
            missing = {}
            for other in kinds.values():
                for end in missing_beside(x, other, weights, family):
                    missing.setdefault(end, other.name)
            for end, name in missing.items():
                yield f"{x.name}.{end} is missing, which {name} has"


def missing_beside(
    x: Group, other: Group, weights: Collection[str], family: Family
) -> Iterator[str]:
    """Find the ends of keys that `x` lacks, if it has no others than the block `other`."""
    missing = {end: key for end, key in other.ends.items() if end not in x.ends}
    if not missing or x.ends.keys() - other.ends.keys():
        return
    modules = {end.rpartition(".")[0] for end in x.ends}
    halves = {
        end
        for end in missing
        if end.rpartition(".")[0] in modules and re.search(r"(weight|bias|running_\w+)$", end)
    }
    counted = {end for end, key in missing.items() if key in weights}
    usual = {end for end in counted if not re.fullmatch(family.unlike, missing[end])}
    # A block that may do without a convolution has no normalisation of it either.
    alone = len(counted | halves) == len(missing)
    if family.uniform:
        yield from sorted(halves | (counted if alone else usual))
    elif alone:
        yield from sorted(halves | usual)


def missing_convolutions(groups: list[Group], weights: Collection[str]) -> Iterator[str]:
    """Find the one block, or other modules, with more batch normalisations than convolutions."""
    excess = {}
    for x in groups:
        # RepVGG and its kind add the identity, normalised.
        norms = sum(e.endswith("running_mean") and "identity." not in e for e in x.ends)
        more = norms - sum(key in weights for key in x.ends.values())
        if x.numbers:
            excess[x.name] = more
        elif more > 0:
            yield f"{x.name} has more normalisations than weights"
    highest = max(excess.values(), default=0)
    if highest > 0 and list(excess.values()).count(highest) == 1:
        name = max(excess, key=excess.get)
        yield f"{name} has more normalisations than weights"
