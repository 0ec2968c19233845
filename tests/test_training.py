"""The training loop: the numbers of a plain loop, and a record that can be trusted."""

import copy
import json
import math
import os
import shutil

import pytest
import torch
from loops import CPU, Batches, random_batches, read_csv, run_fit, small_network
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from console import InputError
from safe_io import sha256
from training.device import choose_device, choose_precision
from training.engine import evaluate
from training.record import COLUMNS
from training.schedule import Schedule


def fit_batches(path, *, model=None, batches=None, **options):
    """Train and validate on the same batches; return the Run."""
    batches = random_batches() if batches is None else batches
    model = small_network() if model is None else model
    return run_fit(model, Batches(batches), Batches(batches), path, **options)


def test_three_steps_are_those_of_a_plain_loop(tmp_path):
    model = small_network(dropout=0.0)  # the plain loop draws no masks
    plain = copy.deepcopy(model)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    plain.train()
    losses = []
    for images, labels in random_batches(3):
        loss = nn.functional.cross_entropy(plain(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    fit_batches(tmp_path / "x.pth", model=model, epochs=1, keep="last")
    for key, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    row = read_csv(tmp_path / "x.pth")[0]
    assert float(row["train_loss"]) == pytest.approx(sum(losses) / 3, rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="needs a compiler")
@pytest.mark.skipif(
    "ATEN_CPU_CAPABILITY" in os.environ, reason="Inductor compiles for the processor that is there"
)
def test_compiled_network_trains_alike_and_is_stored_under_plain_keys(tmp_path):
    models = []
    for compiled in (False, True):
        path = tmp_path / f"{compiled}.pth"
        model = small_network(dropout=0.0)  # compiled code draws other masks
        fit_batches(path, model=model, keep="last", compiled=compiled)
        models.append(torch.load(path))
    assert list(models[0]) == list(models[1])
    for key, value in models[0].items():
        assert torch.allclose(value, models[1][key], atol=1e-5), key


def rates(scheduler, steps, *, lr=0.1, max_epoch=1, steps_per_epoch=1, **options):
    schedule = Schedule(
        scheduler=scheduler, lr=lr, max_epoch=max_epoch, steps_per_epoch=steps_per_epoch, **options
    )
    return [schedule.learning_rate(step) for step in steps]


def test_cosine_is_torchs_and_changes_once_an_epoch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    ours = rates("cosine", range(210), lr=0.01, max_epoch=30, steps_per_epoch=7)
    for epoch in range(30):
        expected = optimizer.param_groups[0]["lr"]
        assert ours[7 * epoch : 7 * epoch + 7] == pytest.approx([expected] * 7, rel=1e-9)
        optimizer.step()
        torchs.step()


def test_step_schedule_divides_by_ten_every_forty_epochs():
    steps = [epoch * 5 for epoch in (0, 39, 40, 79, 80, 119)]
    found = rates("step", steps, max_epoch=120, steps_per_epoch=5)
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_max_steps_anneals_every_step_to_the_end():
    options = {"steps_per_epoch": 7, "max_steps": 30}
    cosine = rates("cosine", range(30), **options)
    assert cosine == pytest.approx(
        [0.1 * 0.5 * (1 + math.cos(math.pi * step / 30)) for step in range(30)]
    )
    step = rates("step", (0, 9, 10, 19, 20, 29), **options)
    assert step == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_warmup_is_linear_per_step():
    found = rates("constant", range(12), max_epoch=4, steps_per_epoch=5, warmup_epochs=2)
    assert found == pytest.approx([0.1 * min(1, (s + 1) / 10) for s in range(12)])


@pytest.mark.parametrize("max_steps", [1, 3, 4, 7])
def test_max_steps_is_the_exact_number_of_optimiser_steps(tmp_path, max_steps):
    steps = []
    handle = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    try:
        fit_batches(tmp_path / "x.pth", max_steps=max_steps)
    finally:
        handle.remove()
    assert len(steps) == max_steps
    rows = read_csv(tmp_path / "x.pth")
    assert int(rows[-1]["step"]) == max_steps
    assert len(rows) == math.ceil(max_steps / 3)


def forced_accuracies(path, keep, accuracies=(50, 90, 10)):
    """Train a network whose validation accuracy after each epoch is the one given."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 10))
    labels = torch.arange(10)
    batch = [(torch.eye(10).view(10, 10, 1, 1), labels)]

    def force(epoch):
        right = accuracies[epoch] // 10
        answers = torch.where(labels < right, labels, (labels + 1) % 10)
        with torch.no_grad():
            model[1].weight.copy_(100 * nn.functional.one_hot(answers, 10).T.float())
            model[1].bias.zero_()

    train = Batches(batch, on_epoch=force)
    run = run_fit(model, train, Batches(batch), path, epochs=3, lr=1e-9, keep=keep)
    return run.record, model, batch


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("best", {"x": 90.0}), ("last", {"x": 10.0}), ("both", {"x": 90.0, "x_last": 10.0})],
)
def test_kept_file_re_evaluates_to_its_accuracy(tmp_path, keep, expected):
    _, model, batch = forced_accuracies(tmp_path / "x.pth", keep)
    assert {p.stem for p in tmp_path.glob("*.pth")} == set(expected)
    for stem, accuracy in expected.items():
        model.load_state_dict(torch.load(tmp_path / f"{stem}.pth"))
        _, measured = evaluate(model, Batches(batch), precision=None, device=CPU)
        assert measured == pytest.approx(accuracy, abs=1e-4)
        record = json.loads((tmp_path / f"{stem}.json").read_text())
        assert record["val_acc"] == pytest.approx(accuracy, abs=1e-4)
        assert record["kept_epoch"] == (2 if accuracy == 90 else 3)
        assert record["sha256"] == sha256(tmp_path / f"{stem}.pth")
        assert record["finished"] is True
        assert (record["best_epoch"], record["best_val_acc"]) == (2, pytest.approx(90))
        assert record["last_val_acc"] == pytest.approx(10)


def test_first_of_equal_accuracies_is_kept(tmp_path):
    record, _, _ = forced_accuracies(tmp_path / "x.pth", "best", (50, 90, 90))
    assert record.best["epoch"] == 2


def test_rows_without_validation_have_empty_cells_and_the_end_is_validated(tmp_path):
    fit_batches(tmp_path / "x.pth", batches=random_batches(2), epochs=5, val_interval=2)
    rows = read_csv(tmp_path / "x.pth")
    assert tuple(rows[0]) == COLUMNS
    assert [row["val_acc"] != "" for row in rows] == [False, True, False, True, True]
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8, 10]
    assert float(rows[-1]["sum_lr"]) == pytest.approx(0.1 * 10)


@pytest.mark.parametrize("images", [13, 2, 3])
def test_parts_of_a_batch_have_at_least_two_images(tmp_path, images):
    """BatchNorm cannot train on one whose maps are 1 x 1, nor could it be evaluated."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 3))
    sizes = []
    model.register_forward_pre_hook(lambda m, x: sizes.append(len(x[0])) if m.training else None)
    batches = random_batches(2, size=images)
    fit_batches(tmp_path / "x.pth", model=model, batches=batches, epochs=1, accumulate=4)
    assert sizes == {13: [4, 3, 3, 3], 2: [2], 3: [3]}[images] * 2


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path, accumulate):
    """Without BatchNorm, whose statistics are those of the parts, nothing but rounding differs."""
    finals = []
    for parts in (1, accumulate):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        path = tmp_path / f"{parts}.pth"
        batches = random_batches(3, size=7)
        fit_batches(path, model=model, batches=batches, epochs=1, accumulate=parts)
        finals.append((model[1].weight, read_csv(path)[0]["train_acc"]))
    assert torch.allclose(finals[0][0], finals[1][0], atol=1e-6)
    assert finals[0][1] == finals[1][1]


def test_accuracy_is_per_cent_over_all_images_of_uneven_batches():
    model = nn.Flatten()
    logits = torch.eye(3).view(3, 3, 1, 1)
    batches = [(logits, torch.tensor([0, 1, 0])), (logits[:1], torch.tensor([0]))]
    loss, accuracy = evaluate(model, Batches(batches), precision=None, device=CPU)
    assert accuracy == 75.0
    expected = nn.functional.cross_entropy(
        torch.cat([b.flatten(1) for b, _ in batches]), torch.cat([y for _, y in batches])
    )
    assert loss == pytest.approx(expected.item(), rel=1e-6)


def test_loss_that_is_not_finite_names_its_first_iteration_and_saves_nothing(tmp_path):
    batches = random_batches(5)
    for i in (2, 3):
        batches[i][0][0, 0, 0, 0] = math.nan
    path = tmp_path / "x.pth"
    path.write_bytes(b"the file of an earlier run")
    with pytest.raises(InputError, match="not finite since epoch 1, iteration 3"):
        fit_batches(path, batches=batches)
    assert path.read_bytes() == b"the file of an earlier run"
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


class Overflowing(nn.Module):
    """Its logits are normal in training, and `factor` times as large otherwise."""

    def __init__(self, factor):
        super().__init__()
        self.linear, self.factor = nn.Linear(48, 3), factor
        nn.init.zeros_(self.linear.weight)
        self.linear.bias.data = torch.tensor([0.5, 0.0, -0.5])

    def forward(self, images):
        return self.linear(images.flatten(1)) * (1 if self.training else self.factor)


@pytest.mark.parametrize(
    "factor",
    [
        math.inf,
        1e38,  # of the sum over the images alone
    ],
)
def test_validation_loss_that_overflows_is_called_that(tmp_path, factor):
    """It is no NaN of the training, and evaluate.py has no learning rate."""
    path = tmp_path / "x.pth"
    model = Overflowing(factor)
    with pytest.raises(InputError, match=r"^the validation loss of epoch 1 overflows, .*--lr"):
        fit_batches(path, model=model, lr=1e-9)
    assert not path.exists()
    with pytest.raises(InputError, match=r"^the loss overflows although all parameters ar[^-]*$"):
        evaluate(model, Batches(random_batches()), precision=None, device=CPU)


def test_log_interval_prints_iterations_only_when_asked(tmp_path, capsys):
    for interval, lines in ((None, 0), (2, 4)):
        fit_batches(tmp_path / "x.pth", batches=random_batches(4), log_interval=interval)
        assert capsys.readouterr().out.count("iteration") == lines


def test_dropout_depends_on_seed_and_epoch_only(tmp_path):
    runs = []
    for _ in range(2):
        torch.rand(7)  # whatever was drawn before must not matter
        model = small_network()
        torch.rand(3)
        fit_batches(tmp_path / "x.pth", model=model)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision_computes_in_it_and_keeps_parameters_in_float32(tmp_path, precision):
    model, kinds = small_network(), []
    before = copy.deepcopy(model.state_dict())
    model[5].register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    # The first steps in fp16 are skipped until the scale of the loss fits.
    fit_batches(tmp_path / "x.pth", model=model, precision=precision, epochs=10)
    assert set(kinds) == {precision}
    for key, value in model.named_parameters():
        assert value.dtype == torch.float32
        assert value.isfinite().all()
        assert not torch.equal(value, before[key])


def test_automatic_precision_is_off_on_a_cpu():
    assert choose_precision("auto", CPU) is None
    assert choose_precision("bf16", CPU) is torch.bfloat16


@pytest.mark.parametrize("name", ["cuda:99", "nonsense"])
def test_device_that_is_not_here_is_one_line(name):
    with pytest.raises(InputError, match=name) as error:
        choose_device(name)
    assert "\n" not in str(error.value)


def torchrun(monkeypatch, **changes):
    """Pretend to be a process of torchrun's."""
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **changes}
    environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)


def test_gpu_of_a_process_is_the_current_one_and_joins_its_group(monkeypatch):
    current, joined = [], []
    torchrun(monkeypatch, RANK="1", LOCAL_RANK="1")
    monkeypatch.setattr(torch, "ones", lambda *a, **k: torch.zeros(2))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *a, **options: joined.append(options)
    )
    assert choose_device("cuda") == torch.device("cuda:1")
    assert [options["device_id"] for options in joined] == current == [torch.device("cuda:1")]
    monkeypatch.delenv("LOCAL_RANK")
    choose_device("cuda:0")
    assert current[1:] == [torch.device("cuda:0")]
    assert len(joined) == 1  # a RANK alone is of something else


def test_more_processes_than_gpus_is_one_line(monkeypatch):
    torchrun(monkeypatch, RANK="1", LOCAL_RANK="1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"^torchrun .* GPUs \(1\); give --nproc_per_node 1$"):
        choose_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_gpu_trains_close_to_cpu(tmp_path, amp):
    gpu, weights = choose_device("cuda"), []
    for device, precision in ((CPU, None), (gpu, choose_precision(amp, gpu))):
        model = small_network(dropout=0.0).to(device)
        batches = [(x.to(device), y.to(device)) for x, y in random_batches()]
        options = {"lr": 0.01, "epochs": 1, "device": device, "precision": precision}
        fit_batches(tmp_path / "x.pth", model=model, batches=batches, **options)
        weights.append(model[5].weight.detach().cpu())
    assert (weights[0] - weights[1]).abs().mean() < 1e-3
