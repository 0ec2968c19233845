"""What lies around the parameters of a network in a file: containers, wrappers, other networks."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from console import InputError, offer, warn

from .layers import Shapes, partition

# Where training scripts put the state dict, in the order of preference.
CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "params",
    "module",
    "teacher",
    "student",
    "model_ema",
    "ema",
)
# Words that data-parallel, compiled, checkpointed and sharded modules put into a key.
WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
# Prefixes that are taken off every key of a network of no known family.
PREFIXES = ("model.", "backbone.")
# Keys that a message lists at most.
MOST_NAMES = 8
# Components that the path of a network in a file has at most.
DEEPEST = 32


def open_container(content: Mapping, path: Path, subtree: str) -> tuple[Mapping, str, str]:
    """Return the mapping that holds the parameters, its key ("" for the top level itself), subtree.

    Of several keys of CONTAINERS the first is used, with a warning, unless `subtree` starts with
    another; the rest of it is returned.
    """
    container = ""
    for _ in range(3):
        first, _, rest = subtree.partition(".")
        if first and holds_tensors(content.get(first)):
            content, container, subtree = content[first], first, rest
            continue
        keys = [k for k in CONTAINERS if holds_tensors(content.get(k))]
        if not keys:
            break
        if len(keys) > 1:
            other = offer(" (--subtree takes another)")
            warn(f"{path} holds {', '.join(keys)}; using {keys[0]!r}{other}")
        content, container = content[keys[0]], keys[0]
    return content, container, subtree


def holds_tensors(value: Any, depth: int = 3) -> bool:
    """Whether `value` is a mapping with a tensor in it, directly or in known containers."""
    if not isinstance(value, Mapping) or not depth:
        return False
    if any(isinstance(v, Tensor) for v in value.values()):
        return True
    return any(holds_tensors(value.get(k), depth - 1) for k in CONTAINERS)


def without_wrappers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors without the words of WRAPPERS in their keys.

    Raises InputError where that gives two tensors one key.
    """
    renamed = {key: unwrapped(key) or key for key in tensors}
    twice = [name for name, count in Counter(renamed.values()).items() if count > 1]
    if twice:
        keys = [key for key in renamed if renamed[key] == twice[0]]
        raise InputError(f"{path} holds one tensor twice: {names(keys)}; leave one of them")
    return {renamed[key]: value for key, value in tensors.items()}


def unwrapped(key: str) -> str:
    """Return a key or a path without the words of WRAPPERS."""
    return ".".join(x for x in key.split(".") if x and x not in WRAPPERS)


def take_subtree(tensors: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return the tensors below the module `path`, under their keys there."""
    start = f"{unwrapped(path)}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def take_network(tensors: Mapping[str, Tensor], shapes: Shapes, path: Path) -> dict[str, Tensor]:
    """Return the tensors of the known network in a file, under its own keys.

    shapes: key -> shape of the tensors that can be compared. What stays behind is said. Raises
    InputError where there are several networks. A file without any is returned whole.
    """
    prefixes = networks(shapes)
    if len(prefixes) > 1:
        raise InputError(
            f"{path} holds several networks: {names(x[:-1] for x in prefixes)}"
            + (offer("; choose one of them with --subtree") or "; save one of them by itself")
        )
    prefix = prefixes[0] if prefixes else common_prefix(shapes)
    behind = [key for key in shapes if not key.startswith(prefix)]
    if behind:
        warn(f"{path}: the network {prefix[:-1]} is taken; left behind: {names(behind)}")
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def networks(shapes: Shapes, prefix: str = "") -> list[str]:
    """Return the paths of the outermost sub-trees with the keys of a known network, "." included.

    shapes: key -> shape in the sub-tree `prefix`.
    """
    children: dict[str, Shapes] = {}
    for key, shape in shapes.items():
        child, _, rest = key.partition(".")
        if rest:
            children.setdefault(child, {})[rest] = shape
    grouped = partition(shapes)
    if not grouped.family:
        # A part of a block may look like a network, but it has no stem.
        inner = [x for x in children if len(children) == 1 or has_stem(children[x])]
        if prefix.count(".") == DEEPEST:
            inner = []
        return [y for x in inner for y in networks(children[x], f"{prefix}{x}.")]
    # A family may be recognised under the prefix of a base model, too, as in `vit.encoder`. With
    # a linear classifier beside that, the whole is the network.
    counted = set(grouped.counted)
    holders = dict.fromkeys(key.partition(".")[0] for key in shapes if key in counted)
    beside = [k for k, v in shapes.items() if len(v) > 1 and k.partition(".")[0] not in holders]
    if beside == [f"{grouped.head}.weight"]:
        return [prefix]
    inner = [
        networks(below, f"{prefix}{x}.") if has_stem(below) else []
        for x, below in ((x, children.get(x, {})) for x in holders)
    ]
    return [y for x in inner for y in x] if all(inner) else [prefix]


def has_stem(shapes: Shapes) -> bool:
    """Whether there is a convolution of images, or of their patches (48 channels at most)."""
    return any(len(x) >= 4 and 2 <= x[1] <= 48 and x[-1] > 1 for x in shapes.values())


def common_prefix(keys: Iterable[str]) -> str:
    """Return the PREFIXES, in any order and nesting, that all keys share."""
    prefix, keys = "", list(keys)
    while True:
        longer = [prefix + x for x in PREFIXES if all(k.startswith(prefix + x) for k in keys)]
        if not keys or not longer:
            return prefix
        prefix = longer[0]


def names(keys: Iterable) -> str:
    """Return the first keys as text for a message, "none" if there are none."""
    keys = [str(key) for key in keys]
    more = f", ... ({len(keys)} in all)" if len(keys) > MOST_NAMES else ""
    return ", ".join(keys[:MOST_NAMES]) + more or "none"
