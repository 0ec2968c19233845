"""The training loop on a small network and batches made for the test."""

import csv

import torch
from torch import nn

from safe_io import sibling
from training.engine import fit
from training.record import Record
from training.resume import ResumeFile
from training.run import Run
from training.schedule import Schedule, make_optimizer

CPU = torch.device("cpu")


def nothing(*args):
    """Stands for a call that is of no interest."""


class Batches:
    """A loader over fixed batches.

    on_epoch(epoch) is called when an epoch is chosen, on_batch() when a batch is asked for.
    """

    def __init__(self, batches, *, on_epoch=nothing, on_batch=nothing):
        self.batches, self.on_epoch, self.on_batch = batches, on_epoch, on_batch
        self.first = 0
        self.num_images = sum(len(labels) for _, labels in batches)
        self.unreadable = []

    def start(self):
        """It has no processes."""

    def set_epoch(self, epoch, first_batch=0):
        self.on_epoch(epoch)
        self.first = first_batch

    def weight(self, batch):
        return 1.0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches[self.first :]:
            self.on_batch()
            yield batch


def random_batches(count=3, size=4, classes=3, seed=0):
    """Images [size, 3, 4, 4] and labels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 3, 4, 4, generator=generator),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def small_network(classes=3, seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(64, classes),
    )


def new_run(model, path, *, steps_per_epoch, optimizer="sgd", **options):
    """A Run that writes `path`; options: of Schedule, Record, ResumeFile and Run."""
    options = {"lr": 0.1, "scheduler": "constant", "epochs": 2, "device": CPU, **options}
    lr, keep = options.pop("lr"), options.pop("keep", "best")
    facts = {"script": "test", "classes": ["a", "b"], "args": {"keep": keep}}
    return Run(
        model=model,
        optimizer=make_optimizer(
            optimizer, model, lr=lr, weight_decay=options.pop("weight_decay", 1e-2)
        ),
        schedule=Schedule(
            scheduler=options.pop("scheduler"),
            lr=lr,
            max_epoch=options.pop("epochs"),
            steps_per_epoch=steps_per_epoch,
            max_steps=options.pop("max_steps", None),
        ),
        record=Record(path, keep=keep, facts=facts),
        file=ResumeFile(
            path, config=options.pop("config", {}), save_minutes=options.pop("save_minutes", 10)
        ),
        **options,
    )


def run_fit(model, train, val, path, *, val_interval=1, log_interval=None, resume=False, **options):
    """Train `model` with the options of `new_run`; return the Run."""
    run = new_run(model, path, steps_per_epoch=len(train), **options)
    fit(run, train, val, val_interval=val_interval, log_interval=log_interval, resume=resume)
    return run


def read_csv(path, ending=".csv"):
    """The rows of a table that belongs to the checkpoint `path`."""
    with open(sibling(path, ending), newline="") as file:
        return list(csv.DictReader(file))
