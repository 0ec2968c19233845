"""Disks that are full soon."""

import contextlib
import os
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """Mount a disk of so many MiB on a new folder; skip the test where that cannot be done."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield folder
    finally:
        # Lazy, as the exception of a failed write may still hold its file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
