"""An interrupted run goes on as if nothing had happened: the same numbers, bit for bit."""

import json
import os
import signal
import sys
from functools import partial

import pytest
import torch
from test_training import CPU, Batches, random_batches, read_csv, small_network

from console import InputError, Interrupted
from safe_io import sha256, sibling
from training import distributed
from training.engine import Run, fit
from training.record import Record
from training.runstate import RunState, begin, stoppable
from training.schedule import learning_rate, make_optimizer


class Killed(BaseException):
    """Stands for kill -9: nothing in the code under test catches it."""


def train(path, *, resume=False, kill=None, save_minutes=10, epochs=3, signal_at=None, **options):
    """Train a network with dropout; `kill(run)` is asked after every step."""
    model = small_network()
    train_loader = Batches(random_batches(4))
    val_loader = Batches(random_batches(2, seed=1))
    record = Record(path, keep=options.pop("keep", "both"), facts={"classes": ["a", "b", "c"]})
    state = RunState(path, config=options.pop("config", {}), save_minutes=save_minutes)
    steps = 0
    is_due = state.is_due

    def is_due_or_killed():
        nonlocal steps
        steps += 1
        if steps == signal_at:
            state.stop_signal = signal.SIGTERM
        due = is_due()
        if kill is not None and steps == kill:
            raise Killed
        return due

    state.is_due = is_due_or_killed
    fit(
        model,
        train_loader,
        val_loader,
        epochs=epochs,
        max_steps=options.pop("max_steps", None),
        optimizer=make_optimizer("sgd", model, lr=0.1, weight_decay=1e-4),
        learning_rate=partial(
            learning_rate, lr=0.1, scheduler="cosine", epochs=epochs, steps_per_epoch=4
        ),
        precision=options.pop("precision", None),
        accumulate=options.pop("accumulate", 1),
        compiled=False,
        device=CPU,
        seed=0,
        val_interval=1,
        log_interval=None,
        record=record,
        state=state,
        resume=resume,
    )
    return model.state_dict()


def outputs(path):
    """Everything that a run leaves, without what depends on the clock."""
    rows = read_csv(path)
    for row in rows:
        del row["images_per_s"], row["seconds"]
    records = {}
    for ending in (".json", "_last.json"):
        record = json.loads(sibling(path, ending).read_text())
        del record["seconds"]
        records[ending] = record
    return rows, records


def assert_same_run(path, straight):
    assert outputs(path) == outputs(straight)
    for ending in (".pth", "_last.pth"):
        a, b = torch.load(sibling(path, ending)), torch.load(sibling(straight, ending))
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert sha256(sibling(path, ending)) == sha256(sibling(straight, ending))
    assert not list(path.parent.glob("*.resume*"))
    assert not list(path.parent.glob(".*tmp"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    path = tmp_path_factory.mktemp("straight") / "x.pth"
    train(path)
    return path


# Six chances an epoch: after each of four steps, after each of two validation batches.
@pytest.mark.parametrize("kill", [1, 2, 4, 5, 6, 7, 10, 12, 18])
@pytest.mark.parametrize("save_minutes", [10, 0])
def test_killed_run_goes_on_bit_for_bit(tmp_path, straight, kill, save_minutes):
    path = tmp_path / "x.pth"
    with pytest.raises(Killed):
        train(path, kill=kill, save_minutes=save_minutes)
    if kill > (1 if save_minutes == 0 else 6):
        assert sibling(path, ".resume").exists()
    train(path, resume=True, save_minutes=save_minutes)
    assert_same_run(path, straight)


@pytest.mark.parametrize("signal_at", [1, 5, 6, 10, 18])
def test_signal_saves_in_mid_epoch_and_says_how_to_go_on(tmp_path, straight, signal_at):
    path = tmp_path / "x.pth"
    with pytest.raises(Interrupted, match=r"--resume goes on from there") as interruption:
        train(path, signal_at=signal_at)
    assert interruption.value.number == signal.SIGTERM
    train(path, resume=True)
    assert_same_run(path, straight)


def test_first_signal_is_answered_on_a_terminal(tmp_path, monkeypatch, capfd):
    """A log file gets only the one line at the end."""
    for terminal, lines in ((True, 1), (False, 0)):
        monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream, answer=terminal: answer)
        state = RunState(tmp_path / "x.pth", config={}, save_minutes=10)
        with stoppable(state):
            os.kill(os.getpid(), signal.SIGTERM)
        assert state.stop_signal == signal.SIGTERM
        assert capfd.readouterr().err.count("stopping after this iteration") == lines


def test_mid_epoch_state_holds_the_exact_place(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(Interrupted):
        train(path, signal_at=9)  # six calls belong to the first epoch
    counters = torch.load(sibling(path, ".resume"))["counters"]
    assert (counters["epoch"], counters["batches"], counters["step"]) == (1, 3, 7)
    assert counters["sum_lr"] == pytest.approx(4 * 0.1 + 3 * 0.075)


@pytest.mark.parametrize("point", ["epoch", "mid"])
def test_state_cut_short_gives_way_to_the_one_before(tmp_path, straight, point, capsys):
    path = tmp_path / "x.pth"
    with pytest.raises(Killed):
        train(path, kill=15 if point == "epoch" else 10, save_minutes=10 if point == "epoch" else 0)
    state = sibling(path, ".resume")
    state.write_bytes(state.read_bytes()[:-500])
    train(path, resume=True)
    assert "going back to the one before" in capsys.readouterr().err
    assert_same_run(path, straight)


def test_damaged_state_does_not_replace_the_good_one_before(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(Killed):
        train(path, kill=15)
    good = sibling(path, ".resume.prev").read_bytes()
    sibling(path, ".resume").write_bytes(b"damaged")
    with pytest.raises(Killed):
        train(path, resume=True, kill=8)  # the next state has just been saved
    assert sibling(path, ".resume.prev").read_bytes() == good
    assert torch.load(sibling(path, ".resume"))["counters"]["epoch"] == 2


def test_two_damaged_states_are_an_error_and_stay(tmp_path):
    path = tmp_path / "x.pth"
    for ending in (".resume", ".resume.prev"):
        sibling(path, ending).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"no state to resume from .* --overwrite"):
        train(path, resume=True)
    assert sibling(path, ".resume").read_bytes() == b"damaged"


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_kill_between_state_and_outputs_of_an_epoch(tmp_path, straight, monkeypatch, epoch):
    path = tmp_path / "x.pth"
    original = Record.write
    writes = []

    def kill(self, *args, **options):
        writes.append(1)
        if len(writes) == epoch:
            raise Killed
        return original(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "write", kill)
        with pytest.raises(Killed):
            train(path)
    train(path, resume=True)
    assert_same_run(path, straight)


def test_other_settings_are_refused_by_name(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(Killed):
        train(path, kill=10, config={"lr": 0.1, "max_epoch": 3})
    with pytest.raises(InputError, match=r"another max_epoch \(3, now 5\)"):
        train(path, resume=True, config={"lr": 0.1, "max_epoch": 5})
    train(path, resume=True, config={"lr": 0.1, "max_epoch": 3})


def test_kept_file_that_has_changed_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(Killed):
        train(path, kill=16, keep="best")
    kept = json.loads(sibling(path, ".json").read_text())["kept_epoch"]
    state = torch.load(sibling(path, ".resume"))
    if kept == state["record"]["rows"][-1]["epoch"]:
        pytest.skip("the newest epoch is the best, and is written again")
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match="is not the file that the run kept at epoch"):
        train(path, resume=True, keep="best")


def test_newest_file_that_is_gone_in_mid_epoch_is_refused(tmp_path):
    """In mid-epoch the parameters of the epoch before are nowhere else."""
    path = tmp_path / "x.pth"
    with pytest.raises(Interrupted):
        train(path, signal_at=8, keep="best")
    path.unlink()
    with pytest.raises(InputError, match="is not the file that the run kept at epoch 1"):
        train(path, resume=True, keep="best")


def test_full_disk_leaves_the_previous_state(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    with pytest.raises(Killed):
        train(path, kill=8)
    before = sibling(path, ".resume").read_bytes()

    def no_space(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", no_space)
        with pytest.raises(InputError, match="No space left on device"):
            train(path, resume=True)
    assert sibling(path, ".resume").read_bytes() == before
    assert not list(tmp_path.glob(".*tmp"))


def test_states_load_without_running_code(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(Killed):
        train(path, kill=10, save_minutes=0)
    for file in (path, sibling(path, ".resume"), sibling(path, ".resume.prev")):
        torch.load(file, weights_only=True)


def test_not_finite_loss_is_found_before_it_gets_into_the_state(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    with pytest.raises(Killed):
        train(path, kill=7)
    before = sibling(path, ".resume").read_bytes()
    batches = random_batches(4)
    batches[3][0][:] = float("nan")
    monkeypatch.setattr("test_resume.random_batches", lambda *a, **k: batches)
    with pytest.raises(InputError, match="not finite since epoch 2, iteration 4"):
        train(path, resume=True, save_minutes=0.0001)
    assert torch.load(sibling(path, ".resume"))["counters"]["batches"] <= 3
    assert before


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path, accumulate):
    """Without BatchNorm, whose statistics are those of the parts, nothing but rounding differs."""
    finals = []
    for parts in (1, accumulate):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        loader = Batches(random_batches(3, size=7))
        fit(
            model,
            loader,
            loader,
            epochs=1,
            max_steps=None,
            optimizer=make_optimizer("sgd", model, lr=0.1, weight_decay=0),
            learning_rate=lambda step: 0.1,
            precision=None,
            accumulate=parts,
            compiled=False,
            device=CPU,
            seed=0,
            val_interval=1,
            log_interval=None,
            record=Record(tmp_path / "x.pth", keep="last", facts={}),
            state=RunState(tmp_path / "x.pth", config={}, save_minutes=10),
            resume=False,
        )
        finals.append((model[1].weight, read_csv(tmp_path / "x.pth")[0]["train_acc"]))
    assert torch.allclose(finals[0][0], finals[1][0], atol=1e-6)
    assert finals[0][1] == finals[1][1]


def test_fp16_scale_survives_an_interruption(tmp_path):
    straight, path = tmp_path / "straight.pth", tmp_path / "x.pth"
    train(straight, precision=torch.float16)
    with pytest.raises(Killed):
        train(path, precision=torch.float16, kill=10, save_minutes=0)
    scale = torch.load(sibling(path, ".resume"))["scaler"]["scale"]
    assert scale != 65536  # the first steps are skipped and halve it
    train(path, precision=torch.float16, resume=True)
    assert outputs(path) == outputs(straight)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("was_gpu", [False, True])
def test_state_of_another_device_is_gone_on_from(tmp_path, optimizer, was_gpu):
    """GPUs have fused optimisers and, in fp16, a loss scale; processors have neither."""

    def run_on(gpu):
        model = small_network()
        # A processor has fused optimisers, too, if it is asked for them.
        kind = torch.optim.AdamW if optimizer == "adamw" else torch.optim.SGD
        chosen = kind(model.parameters(), lr=0.1, fused=gpu)
        scaler = torch.amp.GradScaler("cpu", enabled=gpu)
        images, labels = random_batches(1)[0]
        scaler.scale(torch.nn.functional.cross_entropy(model(images), labels)).backward()
        scaler.step(chosen)
        scaler.update()
        return Run(model, chosen, scaler, Record(tmp_path / "x.pth", keep="last", facts={}), CPU)

    state = run_on(was_gpu).state()
    now = run_on(not was_gpu)
    scale = now.scaler.get_scale()
    now.restore(state)
    assert now.optimizer.param_groups[0]["fused"] is (not was_gpu)
    assert now.scaler.get_scale() == scale
    now.optimizer.step()


def test_processes_that_do_not_write_are_never_due_to_save(tmp_path, monkeypatch):
    """Each time they would wait for the GPU."""
    assert RunState(tmp_path / "x.pth", config={}, save_minutes=0).is_due()
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert not RunState(tmp_path / "x.pth", config={}, save_minutes=0).is_due()


class TestBegin:
    def test_unfinished_state_needs_a_decision(self, tmp_path):
        path = tmp_path / "x.pth"
        state = sibling(path, ".resume")
        state.write_bytes(b"state")
        with pytest.raises(InputError, match="add --resume to go on, or --overwrite"):
            begin(path, {}, resume=False, overwrite=False)
        assert state.exists()
        assert begin(path, {}, resume=True, overwrite=False)
        assert state.exists()
        assert begin(path, {}, resume=False, overwrite=True)
        assert not state.exists()

    def test_finished_run_is_left_alone(self, tmp_path, capsys):
        path = tmp_path / "x.pth"
        train(path)
        assert not begin(path, {}, resume=True, overwrite=False)
        assert "is finished; nothing to do" in capsys.readouterr().out
        assert begin(path, {}, resume=False, overwrite=False)
        assert "exists; it is replaced when" in capsys.readouterr().out

    def test_nothing_to_resume_is_said(self, tmp_path, capsys):
        assert begin(tmp_path / "x.pth", {}, resume=True, overwrite=False)
        assert "to resume from; starting anew" in capsys.readouterr().out
