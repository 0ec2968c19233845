"""The comparison of benchmarks/kill_loop.py."""

import torch

from benchmarks import kill_loop


def test_folders_of_outputs_are_compared_tensor_by_tensor(tmp_path):
    for name, tensors in (
        ("ours", {"same": torch.zeros(2), "other": torch.ones(2), "ours": torch.ones(1)}),
        ("straight", {"same": torch.zeros(2), "other": torch.zeros(2)}),
    ):
        (tmp_path / name).mkdir()
        torch.save(tensors, tmp_path / name / "b.pth")
    (tmp_path / "ours" / "b.csv").touch()
    different = kill_loop.differences(tmp_path / "ours", tmp_path / "straight")
    assert different == ["b.csv is in one folder only", "b.pth: other tensors", "b.pth: other"]
