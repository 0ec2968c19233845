"""Settings of the test run."""

import os

# On a busy machine the threads of a process wait for each other, ten times longer than one thread
# would take. Processes that the tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
