"""Settings of the test run."""

import os

# Several threads per process on a busy machine wait for each other, ten times longer than one takes;
# processes that the tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
