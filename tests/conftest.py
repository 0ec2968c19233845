"""Settings of the test run, and fixtures of more than one file."""

import os
import sys

import hypothesis
import pytest

# 25 examples of each property, the same ones every time, fit into the four minutes of make test;
# HYPOTHESIS_PROFILE=long (make test-all) draws 300 new ones.
hypothesis.settings.register_profile("short", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.register_profile("long", max_examples=300, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

# On a busy machine the threads of a process wait for each other, ten times longer than one thread
# would take. Processes that the tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PATCHES = pytest.StashKey[pytest.MonkeyPatch]()


def pytest_addoption(parser):
    parser.addoption("--data_dir", help="folder of CIFAR-10, to check the documented accuracies")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Hide the GPU: exact numbers are those of a CPU. Tests that are marked gpu see it."""
    monkeypatch = item.config.stash.setdefault(PATCHES, pytest.MonkeyPatch())
    monkeypatch.undo()
    if item.get_closest_marker("gpu") is None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the processes that tests start
        if "torch" in sys.modules:
            monkeypatch.setattr(sys.modules["torch"].cuda, "is_available", lambda: False)


# The fixtures import what they need, so that tests which need no torch start at once.


@pytest.fixture
def step_3(capsys):
    """Step 3 in this process, on the given arguments."""
    from checkpoints import call_step_3

    return lambda *args: call_step_3(capsys, *args)


@pytest.fixture
def files(tmp_path):
    """Arguments for a triple of a network with five layers, a head and shortcuts."""
    from checkpoints import resnet_shapes, triple, write_triple

    return write_triple(tmp_path, triple(resnet_shapes(), 0))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved while the test runs."""
    from matplotlib.figure import Figure

    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: (drawn.append(f), save(f, *a, **k)))
    return drawn
