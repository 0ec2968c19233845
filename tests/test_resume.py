"""An interrupted run goes on as if nothing had happened: the same numbers, bit for bit."""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import (
    Batches,
    new_run,
    nothing,
    random_batches,
    read_csv,
    run_fit,
    small_network,
)
from torch import nn

from console import InputError, Interrupted
from safe_io import Busy, locked, sha256, sibling
from training import distributed
from training.record import COLUMNS, Record
from training.resume import ResumeFile, claim, is_finished, stoppable


class Killed(BaseException):
    """Stands for kill -9: nothing in the code under test catches it."""


def kill():
    raise Killed


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def train(path, *, at=None, do=kill, model=None, batches=None, **options):
    """Train a network with dropout for three epochs.

    `do` is called when batch number `at` is asked for: of each epoch's six the first four are for
    training, the others for validation.
    """
    numbers = count(1)

    def on_batch():
        if next(numbers) == at:
            do()

    train_loader = Batches(batches or random_batches(4), on_batch=on_batch)
    val_loader = Batches(random_batches(2, seed=1), on_batch=on_batch)
    options = {"keep": "both", "epochs": 3, "scheduler": "cosine", **options}
    return run_fit(model or small_network(), train_loader, val_loader, path, **options)


def killed(path, at, **options):
    with pytest.raises(Killed):
        train(path, at=at, **options)


def state(path, ending=".resume"):
    return torch.load(sibling(path, ending), weights_only=True)


def outputs(path):
    """The tables and records of a run, without clock times."""
    rows = read_csv(path)
    for row in rows:
        del row["images_per_s"], row["seconds"]
    records = [json.loads(sibling(path, e).read_text()) for e in (".json", "_last.json")]
    for record in records:
        del record["seconds"], record["date"]
    return rows, records


def assert_same_run(path, straight):
    assert outputs(path) == outputs(straight)
    for ending in (".pth", "_last.pth"):
        assert sha256(sibling(path, ending)) == sha256(sibling(straight, ending))
    assert not list(path.parent.glob("*.resume*"))
    assert not list(path.parent.glob(".*tmp"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    path = tmp_path_factory.mktemp("straight") / "x.pth"
    train(path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.pth"


@pytest.mark.parametrize("at", [1, 2, 4, 5, 6, 7, 10, 12, 18])
@pytest.mark.parametrize("save_minutes", [10, 0])
def test_killed_run_goes_on_bit_for_bit(path, straight, at, save_minutes):
    killed(path, at, save_minutes=save_minutes)
    assert sibling(path, ".resume").exists() == (at > (1 if save_minutes == 0 else 6))
    train(path, resume=True, save_minutes=save_minutes)
    assert_same_run(path, straight)


@pytest.mark.parametrize("at", [1, 5, 6, 10, 18])
def test_signal_saves_in_mid_epoch_and_says_how_to_go_on(path, straight, at):
    with pytest.raises(Interrupted, match=r"--resume goes on from there") as interruption:
        train(path, at=at, do=terminate)
    assert interruption.value.number == signal.SIGTERM
    train(path, resume=True)
    assert_same_run(path, straight)


def test_first_signal_is_answered_on_a_terminal(path, monkeypatch, capfd):
    """A log file gets only the one line at the end."""
    for terminal, lines in ((True, 1), (False, 0)):
        monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream, answer=terminal: answer)
        file = ResumeFile(path, config={}, save_minutes=10)
        with stoppable(file):
            terminate()
        assert file.stop_signal == signal.SIGTERM
        assert capfd.readouterr().err.count("stopping after this iteration") == lines


def test_second_signal_stops_at_once(path):
    with pytest.raises(Interrupted, match="stopped at once; --resume goes on from the last state"):
        train(path, at=8, do=lambda: (terminate(), terminate()))
    assert state(path)["counters"]["batches"] == 0


def test_mid_epoch_state_holds_the_exact_place(path):
    with pytest.raises(Interrupted):
        train(path, at=9, do=terminate)  # six batches belong to the first epoch
    counters = state(path)["counters"]
    assert (counters["epoch"], counters["batches"], counters["step"]) == (1, 3, 7)
    assert counters["sum_lr"] == pytest.approx(4 * 0.1 + 3 * 0.075)


def test_run_interrupted_in_its_last_validation_makes_no_further_step(path):
    with pytest.raises(Interrupted, match="after iteration 3;"):
        train(path, at=4, do=terminate, max_steps=3)
    train(path, resume=True, max_steps=3)
    assert json.loads(sibling(path, ".json").read_text())["steps"] == 3


def test_images_unreadable_before_an_interruption_are_counted(path):
    model, val = small_network(), Batches(random_batches(2))
    before = Batches(random_batches(4), on_batch=terminate)
    before.unreadable = ["a.jpg", "b.jpg"]
    with pytest.raises(Interrupted):
        run_fit(model, before, val, path)
    after = Batches(random_batches(4))
    after.unreadable = ["b.jpg"]
    run_fit(model, after, val, path, resume=True)
    assert json.loads(sibling(path, ".json").read_text())["unreadable"] == 2


@pytest.mark.parametrize(("at", "save_minutes"), [(15, 10), (10, 0)])
def test_state_cut_short_gives_way_to_the_one_before(path, straight, at, save_minutes, capsys):
    killed(path, at, save_minutes=save_minutes)
    file = sibling(path, ".resume")
    file.write_bytes(file.read_bytes()[:-500])
    train(path, resume=True)
    assert "going back to the one before" in capsys.readouterr().err
    assert_same_run(path, straight)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run of `train` that was killed in its third epoch."""
    path = tmp_path_factory.mktemp("interrupted") / "x.pth"
    killed(path, 15)
    return path


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), old=st.booleans())
def test_a_single_flipped_bit_is_noticed_wherever_it_is(interrupted, place, bit, old):
    """In tensors, in the archive around them, and in the checksum itself."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(interrupted.parent, folder, dirs_exist_ok=True)
        file = Path(folder) / "x.resume"
        content = bytearray(file.read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        file.write_bytes(content)
        if old:
            sibling(file.with_name("x.pth"), ".resume.prev").write_bytes(content)
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            found = ResumeFile(file.with_name("x.pth"), config={}, save_minutes=10)
            if old:
                with pytest.raises(
                    InputError, match=r"x.resume and .*x.resume.prev, damaged; start"
                ):
                    found.load()
                assert error.getvalue() == ""
            else:
                assert found.load()["counters"]["epoch"] == 1
                assert "x.resume is damaged; going back to the one before" in error.getvalue()


def test_state_without_a_checksum_is_read(interrupted, path):
    """As it was before there were any."""
    torch.save({**state(interrupted), "images": None}, sibling(path, ".resume"))
    assert ResumeFile(path, config={}, save_minutes=10).load()["counters"]["epoch"] == 2


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(("at", "save_minutes"), [(13, 10), (3, 0), (8, 0), (12, 0), (18, 0)])
def test_run_goes_on_bit_for_bit_after_a_flipped_bit(path, straight, at, save_minutes, capsys):
    killed(path, at, save_minutes=save_minutes)
    flip_a_bit(sibling(path, ".resume"))
    killed(path, 2, save_minutes=save_minutes, resume=True)  # again, on the way
    assert "going back to the one before" in capsys.readouterr().err
    train(path, resume=True)
    assert_same_run(path, straight)


def test_checkpoint_of_a_later_epoch_that_does_not_come_again_is_refused(path):
    """As may be on a GPU; else X.json would describe other parameters than those of X.pth."""

    def add(record, epoch, accuracy):
        row = dict.fromkeys(COLUMNS, 0) | {"epoch": epoch, "val_acc": accuracy}
        record.add(row)
        record.write({"x": torch.tensor(epoch)}, unreadable=0, last=False)

    first = Record(path, keep="best", facts={})
    add(first, 1, 10.0)
    before = first.state()
    before["rows"] = list(before["rows"])
    add(first, 2, 20.0)
    again = Record(path, keep="best", facts={})
    again.restore(before, at_epoch_end=False)
    with pytest.raises(InputError, match=r"x.pth is of epoch 2 .* start anew with --overwrite"):
        add(again, 2, 5.0)
    again = Record(path, keep="best", facts={})
    again.restore(before, at_epoch_end=False)
    add(again, 2, 15.0)  # it may be of a later epoch than the state
    assert torch.load(path)["x"] == 2


def test_damaged_state_does_not_replace_the_good_one_before(path):
    killed(path, 15)
    good = sibling(path, ".resume.prev").read_bytes()
    sibling(path, ".resume").write_bytes(b"damaged")
    killed(path, 8, resume=True)  # the next state has just been saved
    assert sibling(path, ".resume.prev").read_bytes() == good
    assert state(path)["counters"]["epoch"] == 2


def test_two_damaged_states_are_an_error_and_stay(path):
    for ending in (".resume", ".resume.prev"):
        sibling(path, ending).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"no state to resume from .* --overwrite"):
        train(path, resume=True)
    assert sibling(path, ".resume").read_bytes() == b"damaged"


@pytest.mark.parametrize("version", [None, 0, 2])
def test_state_of_another_version_is_refused_and_stays(path, version):
    killed(path, 8)
    content = {**state(path), "version": version}
    if version is None:  # before there were numbers
        del content["version"]
    torch.save(content, sibling(path, ".resume"))
    with pytest.raises(InputError, match=r"x.resume was written by another version .*--overwrite$"):
        train(path, resume=True)
    assert state(path).keys() == content.keys()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_kill_between_state_and_outputs_of_an_epoch(path, straight, monkeypatch, epoch):
    original, writes = Record.write, count(1)

    def write(self, *args, **options):
        if next(writes) == epoch:
            raise Killed
        return original(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "write", write)
        killed(path, None)
    train(path, resume=True)
    assert_same_run(path, straight)


def test_other_settings_are_refused_by_name(path):
    killed(path, 10, config={"lr": 0.1, "max_epoch": 3})
    with pytest.raises(InputError, match=r"another max_epoch \(3, now 5\)"):
        train(path, resume=True, config={"lr": 0.1, "max_epoch": 5})
    train(path, resume=True, config={"lr": 0.1, "max_epoch": 3})


def test_kept_file_that_has_changed_is_refused(path):
    # Never better than after the first epoch, since nothing changes.
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    options = {"model": model, "keep": "best", "lr": 1e-30}
    killed(path, 14, **options)
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match="is not the file that the run kept at epoch 1"):
        train(path, resume=True, **options)


def test_newest_file_that_is_gone_in_mid_epoch_is_refused(path):
    """In mid-epoch the parameters of the epoch before are nowhere else."""
    with pytest.raises(Interrupted):
        train(path, at=8, do=terminate, keep="best")
    path.unlink()
    with pytest.raises(InputError, match="is not the file that the run kept at epoch 1"):
        train(path, resume=True, keep="best")


def test_full_disk_leaves_the_previous_state(path, monkeypatch):
    killed(path, 8)
    before = sibling(path, ".resume").read_bytes()

    def no_space(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", no_space)
        with pytest.raises(InputError, match="No space left on device"):
            train(path, resume=True)
    assert sibling(path, ".resume").read_bytes() == before
    assert not list(path.parent.glob(".*tmp"))


def test_output_folder_removed_under_way_is_one_line(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=r"cannot write .*: No such file or directory"):
        train(out / "x.pth", at=3, do=lambda: shutil.rmtree(out))
    assert not out.exists()


def test_states_load_without_running_code(path):
    killed(path, 10, save_minutes=0)
    for ending in (".pth", ".resume", ".resume.prev"):
        state(path, ending)


def test_not_finite_loss_does_not_get_into_the_state(path):
    killed(path, 7)
    batches = random_batches(4)
    batches[3][0][:] = float("nan")
    with pytest.raises(InputError, match="not finite since epoch 2, iteration 4"):
        train(path, batches=batches, resume=True, save_minutes=0)
    assert state(path)["counters"]["batches"] == 3


def test_fp16_scale_survives_an_interruption(tmp_path):
    straight, path = tmp_path / "straight.pth", tmp_path / "x.pth"
    train(straight, precision=torch.float16)
    killed(path, 10, precision=torch.float16, save_minutes=0)
    assert state(path)["scaler"]["scale"] != 65536  # the first steps are skipped and halve it
    train(path, precision=torch.float16, resume=True)
    assert outputs(path) == outputs(straight)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("was_gpu", [False, True])
def test_state_of_another_device_is_gone_on_from(path, optimizer, was_gpu):
    """GPUs have fused optimisers and, in fp16, a loss scale; processors have neither."""

    def run_on(gpu):
        precision = torch.float16 if gpu else None
        run = new_run(
            small_network(), path, steps_per_epoch=1, optimizer=optimizer, precision=precision
        )
        for group in run.optimizer.param_groups:
            group["fused"] = gpu  # a processor has fused optimisers, too, if asked for them
        images, labels = random_batches(1)[0]
        run.scaler.scale(nn.functional.cross_entropy(run.model(images), labels)).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        return run

    saved, now = run_on(was_gpu).state(), run_on(not was_gpu)
    scale = now.scaler.get_scale()
    now.restore(saved)
    assert now.optimizer.param_groups[0]["fused"] is (not was_gpu)
    assert now.scaler.get_scale() == scale
    now.optimizer.step()


def test_processes_that_do_not_write_are_never_due_to_save(path, monkeypatch):
    """Each time they would wait for the GPU."""
    assert ResumeFile(path, config={}, save_minutes=0).is_due()
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert not ResumeFile(path, config={}, save_minutes=0).is_due()


def claimed(path, *, within=nothing, **options):
    """What `claim` yields for a run with these options; `within` is called while it is claimed."""
    settings = {"keep": "best", "resume": False, "overwrite": False, **options}
    with claim(path, settings) as record:
        within()
        return record


def test_unfinished_run_needs_a_decision(path):
    file = sibling(path, ".resume")
    file.write_bytes(b"state")
    with pytest.raises(InputError, match="add --resume to go on, or --overwrite"):
        claimed(path)
    assert claimed(path, resume=True) == {}
    assert claimed(path, overwrite=True) == claimed(path, overwrite=True, resume=True) == {}
    assert file.read_bytes() == b"state"  # until there is something to train with


def test_finished_run_is_left_alone(path, capsys):
    train(path)
    capsys.readouterr()
    assert claimed(path, keep="both", resume=True)["finished"]
    for keep in ("best", "last", "both"):
        with pytest.raises(
            InputError, match=r"x.pth exists already; give another name, or add --o"
        ):
            claimed(path, keep=keep)
    assert claimed(path, keep="both", overwrite=True, resume=True) == {}
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("/")[2].partition(";")[0] for line in lines] == [
        "x.pth exists",
        "x_last.pth exists",
    ]


@pytest.mark.parametrize("ending", [".pth", "_last.pth"])
@pytest.mark.parametrize("change", ["gone", "changed", "unfinished", "no record"])
def test_files_without_a_finished_run_are_not_replaced_unasked(path, ending, change):
    """Whether --resume is given or not."""
    train(path)
    file = sibling(path, ending)
    record = file.with_suffix(".json")
    if change == "gone":
        file.unlink()
    elif change == "changed":
        file.write_bytes(b"other")
    elif change == "no record":
        record.unlink()
    else:
        record.write_text(json.dumps({**json.loads(record.read_text()), "finished": False}))
    for resume in (True, False):
        with pytest.raises(InputError, match=r"pth exists .*; give another name, or add --overw"):
            claimed(path, keep="both", resume=resume)


def test_finished_run_with_other_options_is_refused(path):
    train(path)
    record = sibling(path, ".json")
    content = json.loads(record.read_text())
    content["args"] |= {"lr": 0.1, "r": None}
    record.write_text(json.dumps(content))
    assert claimed(path, keep="both", resume=True, lr=0.1, r=None, seed=3)  # of no seed it knows
    for options in ({"lr": 0.2}, {"r": "r.pth"}):
        with pytest.raises(InputError, match=r"of a finished run with another (lr|r) .*--overwr"):
            claimed(path, **{"keep": "both", "resume": True, "lr": 0.1, "r": None, **options})


def test_finished_run_on_other_data_is_refused_or_warned_of(path, capsys):
    images = {"folder": "/data", "files": "1", "times": "1"}
    record = {"classes": ["a", "b"], "train_images": 3, "parent_sha256": "1", "images": images}
    for other, message in (
        ({"classes": ["a", "c"]}, r"another list of classes \(b, now c\)"),
        ({"classes": ["a", "b", "c"]}, r"another list of classes \(2, now 3\)"),
        ({"train_images": 4}, r"another train_images \(3, now 4\)"),
        ({"parent_sha256": "2"}, "another parent_sha256"),
    ):
        with pytest.raises(InputError, match=message):
            is_finished(path, record, {**record, **other})
    assert capsys.readouterr().err == ""
    for other, message in (
        ({}, ""),
        ({"folder": "/copy", "times": "2"}, ""),
        ({"times": "2"}, "have been written again since: their times differ"),
        ({"files": "2"}, "are others now: their names, sizes or labels differ"),
    ):
        assert is_finished(path, record, {**record, "images": {**images, **other}})
        captured = capsys.readouterr()
        assert "is finished; nothing to do" in captured.out
        assert (message in captured.err) if message else captured.err == ""
    del record["images"]  # as in a record of before
    assert is_finished(path, record, {**record, "images": images})
    assert capsys.readouterr().err == ""
    assert not is_finished(path, {}, record)


def test_nothing_to_resume_is_said(path, capsys):
    assert claimed(path, resume=True) == {}
    assert "to resume from; starting anew" in capsys.readouterr().out


@pytest.mark.parametrize(("keep", "free"), [("best", True), ("last", True), ("both", False)])
def test_last_checkpoint_is_locked_where_it_is_written(path, keep, free):
    def lock_last():
        with locked(sibling(path, "_last.pth")):
            pass

    if free:
        claimed(path, keep=keep, within=lock_last)
    else:
        with pytest.raises(Busy, match=r"x_last.pth is being written"):
            claimed(path, keep=keep, within=lock_last)
    lock_last()
