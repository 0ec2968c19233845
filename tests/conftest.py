"""Settings of the test run."""

import os

# On a busy machine the threads of a process wait for each other, ten times longer than one thread
# would take. Processes that the tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--data_dir", help="folder of CIFAR-10, to check the accuracies of the README")
