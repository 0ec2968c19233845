"""The shared training loop: the numbers of a plain loop, and an account that can be trusted."""

import copy
import csv
import json
import math
import shutil
from functools import partial

import pytest
import torch
from torch import nn

from console import InputError
from safe_io import sha256, sibling
from training.device import choose_device, choose_precision
from training.engine import evaluate, fit
from training.record import COLUMNS, Record
from training.runstate import RunState
from training.schedule import learning_rate, make_optimizer

CPU = torch.device("cpu")


class Batches:
    """A loader over fixed batches; `on_epoch` is called when an epoch is chosen."""

    def __init__(self, batches, on_epoch=lambda epoch: None):
        self.batches = batches
        self.on_epoch = on_epoch
        self.first = 0
        self.num_images = sum(len(labels) for _, labels in batches)
        self.unreadable = []

    def set_epoch(self, epoch, first_batch=0):
        self.on_epoch(epoch)
        self.first = first_batch

    def weight(self, batch):
        return 1.0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches[self.first :])


def random_batches(count=3, size=4, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 3, 4, 4, generator=generator),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def small_network(classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64, classes),
    )


def run_fit(model, train, val, path, *, lr=0.1, scheduler="constant", epochs=2, **options):
    facts = {"script": "test", "classes": ["a", "b", "c"], "seed": 0}
    record = Record(path, keep=options.pop("keep", "best"), facts=facts)
    max_steps = options.pop("max_steps", None)
    fit(
        model,
        train,
        val,
        epochs=epochs,
        max_steps=max_steps,
        optimizer=make_optimizer("sgd", model, lr=lr, weight_decay=1e-2),
        learning_rate=partial(
            learning_rate,
            lr=lr,
            scheduler=scheduler,
            epochs=epochs,
            steps_per_epoch=len(train),
            max_steps=max_steps,
        ),
        precision=options.pop("precision", None),
        device=CPU,
        seed=0,
        val_interval=options.pop("val_interval", 1),
        log_interval=options.pop("log_interval", None),
        accumulate=options.pop("accumulate", 1),
        compiled=options.pop("compiled", False),
        record=record,
        state=RunState(path, config={}, save_minutes=10),
        resume=False,
    )
    return record


def read_csv(path):
    with open(sibling(path, ".csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_three_steps_are_those_of_a_plain_loop(tmp_path):
    model = small_network()
    model[4].p = 0.0  # the plain loop below draws no dropout masks
    plain = copy.deepcopy(model)
    batches = random_batches(3)

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    plain.train()
    losses = []
    for images, labels in batches:
        loss = nn.functional.cross_entropy(plain(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    run_fit(model, Batches(batches), Batches(batches), tmp_path / "x.pth", epochs=1, keep="last")
    for key, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    row = read_csv(tmp_path / "x.pth")[0]
    assert float(row["train_loss"]) == pytest.approx(sum(losses) / 3, rel=1e-6)


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="needs a compiler")
def test_compiled_network_trains_alike_and_is_stored_under_plain_keys(tmp_path):
    models = []
    for compiled in (False, True):
        model = small_network()
        model[4].p = 0.0  # compiled code draws other masks
        batches = Batches(random_batches(3))
        path = tmp_path / f"{compiled}.pth"
        run_fit(model, batches, batches, path, epochs=2, keep="last", compiled=compiled)
        models.append(torch.load(path))
    assert list(models[0]) == list(models[1])
    for key, value in models[0].items():
        assert torch.allclose(value, models[1][key], atol=1e-5), key


@pytest.mark.parametrize(
    ("scheduler", "epoch", "expected"),
    [
        # Cosine from 0.1 over 10 epochs; the second half is what a resumed run must see, too.
        ("cosine", 0, 0.1),
        ("cosine", 5, 0.05),
        ("cosine", 6, 0.0345),
        ("cosine", 7, 0.0206),
        ("cosine", 8, 0.0095),
        ("cosine", 9, 0.0024),
        ("constant", 9, 0.1),
    ],
)
def test_rate_of_an_epoch(scheduler, epoch, expected):
    rate = partial(learning_rate, lr=0.1, scheduler=scheduler, epochs=10, steps_per_epoch=7)
    assert rate(7 * epoch) == pytest.approx(expected, abs=5e-5)
    assert rate(7 * epoch + 6) == rate(7 * epoch)


def test_cosine_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    for epoch in range(30):
        ours = learning_rate(epoch, lr=0.01, scheduler="cosine", epochs=30, steps_per_epoch=1)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        torchs.step()


def test_step_schedule_divides_by_ten_every_forty_epochs():
    rates = [
        learning_rate(e * 5, lr=0.1, scheduler="step", epochs=120, steps_per_epoch=5)
        for e in (0, 39, 40, 79, 80, 119)
    ]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_max_steps_anneals_every_step_to_the_end():
    options = {"lr": 0.1, "epochs": 1, "steps_per_epoch": 7, "max_steps": 30}
    cosine = [learning_rate(s, scheduler="cosine", **options) for s in range(30)]
    assert cosine == sorted(cosine, reverse=True)
    assert len(set(cosine)) == 30
    assert cosine[-1] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 29 / 30)))
    step = [learning_rate(s, scheduler="step", **options) for s in (0, 9, 10, 19, 20, 29)]
    assert step == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_warmup_is_linear_per_step():
    rates = [
        learning_rate(s, lr=0.1, scheduler="constant", epochs=4, steps_per_epoch=5, warmup_epochs=2)
        for s in range(12)
    ]
    assert rates == pytest.approx([0.1 * min(1, (s + 1) / 10) for s in range(12)])


@pytest.mark.parametrize("max_steps", [1, 3, 4, 7])
def test_max_steps_is_the_exact_number_of_optimiser_steps(tmp_path, max_steps):
    model = small_network()
    steps = []
    original = torch.optim.SGD.step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.optim.SGD, "step", lambda self, *a: steps.append(1) or original(self, *a)
        )
        batches = random_batches(3)
        run_fit(model, Batches(batches), Batches(batches), tmp_path / "x.pth", max_steps=max_steps)
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

    record = run_fit(
        model, Batches(batch, force), Batches(batch), path, epochs=3, lr=1e-9, keep=keep
    )
    return record, model, batch


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("best", {"x": 90.0}), ("last", {"x": 10.0}), ("both", {"x": 90.0, "x_last": 10.0})],
)
def test_kept_file_re_evaluates_to_its_accuracy(tmp_path, keep, expected):
    _, model, batch = forced_accuracies(tmp_path / "x.pth", keep)
    assert {p.stem for p in tmp_path.glob("*.pth")} == set(expected)
    for stem, accuracy in expected.items():
        model.load_state_dict(torch.load(tmp_path / f"{stem}.pth"))
        found = evaluate(model, Batches(batch), precision=None, device=CPU, epoch=0)
        assert found[1] == pytest.approx(accuracy, abs=1e-4)
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
    batches = random_batches(2)
    run_fit(
        small_network(),
        Batches(batches),
        Batches(batches),
        tmp_path / "x.pth",
        epochs=5,
        val_interval=2,
    )
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
    batches = Batches(random_batches(2, size=images))
    run_fit(model, batches, batches, tmp_path / "x.pth", epochs=1, accumulate=4)
    assert sizes == {13: [4, 3, 3, 3], 2: [2], 3: [3]}[images] * 2


def test_accuracy_is_per_cent_over_all_images_of_uneven_batches():
    model = nn.Flatten()
    logits = torch.eye(3).view(3, 3, 1, 1)
    batches = [(logits, torch.tensor([0, 1, 0])), (logits[:1], torch.tensor([0]))]
    loss, accuracy = evaluate(model, Batches(batches), precision=None, device=CPU, epoch=0)
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
        run_fit(small_network(), Batches(batches), Batches(batches), path)
    assert path.read_bytes() == b"the file of an earlier run"
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_log_interval_prints_iterations_only_when_asked(tmp_path, capsys):
    batches = random_batches(4)
    for interval, lines in ((None, 0), (2, 4)):
        run_fit(
            small_network(),
            Batches(batches),
            Batches(batches),
            tmp_path / "x.pth",
            log_interval=interval,
        )
        assert capsys.readouterr().out.count("iteration") == lines


def test_dropout_depends_on_seed_and_epoch_only(tmp_path):
    runs = []
    for _ in range(2):
        torch.rand(7)  # whatever was drawn before must not matter
        model = small_network()
        torch.rand(3)
        run_fit(model, Batches(random_batches()), Batches(random_batches()), tmp_path / "x.pth")
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


# The first steps in fp16 are skipped until the loss scale fits, so it is compared more loosely.
@pytest.mark.parametrize(("precision", "bound"), [(torch.bfloat16, 0.02), (torch.float16, 0.1)])
def test_mixed_precision_trains_close_to_full_precision(tmp_path, precision, bound):
    final = []
    for p in (None, precision):
        model = small_network()
        run_fit(
            model,
            Batches(random_batches()),
            Batches(random_batches()),
            tmp_path / "x.pth",
            precision=p,
        )
        final.append(model.state_dict())
    assert final[1]["0.weight"].dtype == torch.float32
    difference = (final[0]["5.weight"] - final[1]["5.weight"]).abs().mean()
    assert 0 < difference < bound


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
    for key, value in environment.items():
        monkeypatch.setenv(key, value)


def test_gpu_of_a_process_is_the_current_one_and_joins_its_group(monkeypatch):
    current, joined = [], []
    torchrun(monkeypatch, RANK="1", LOCAL_RANK="1")
    monkeypatch.setattr(torch, "empty", lambda *a, **k: None)
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
    device = choose_device("cuda")
    model, on_gpu = small_network(), small_network().to(device)
    batches = random_batches()
    for network, where in ((model, CPU), (on_gpu, device)):
        network[4].p = 0.0
        moved = [(x.to(where), y.to(where)) for x, y in batches]
        record = Record(tmp_path / "x.pth", keep="last", facts={})
        fit(
            network,
            Batches(moved),
            Batches(moved),
            epochs=1,
            max_steps=None,
            optimizer=make_optimizer("sgd", network, lr=0.01, weight_decay=0),
            learning_rate=lambda step: 0.01,
            precision=choose_precision(amp, where) if where.type == "cuda" else None,
            device=where,
            seed=0,
            val_interval=1,
            log_interval=None,
            accumulate=1,
            compiled=False,
            record=record,
            state=RunState(tmp_path / "x.pth", config={}, save_minutes=10),
            resume=False,
        )
    difference = (model[5].weight - on_gpu[5].weight.cpu()).abs().mean()
    assert difference < 1e-3
