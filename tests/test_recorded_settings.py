"""What X.json beside a file settles: image size, class names, and the options of the same run."""

import json
import re
import shutil
from pathlib import Path

import drawn_images
import pytest
import torch

import evaluate
import finetune
import pretrain_on_ImageNet
from console import run
from datasets import find
from datasets.subset import draw, first_classes
from findings import __main__ as findings
from models import build, checkpoint, paths
from safe_io import sha256

SIZE = 40  # the default of no data set
SHIPPED = Path(__file__).resolve().parent.parent / "ckpt" / "shipped"


def call(module, *words):
    """Exit code of a script's main, in this process."""
    return run(lambda: module.main([str(word) for word in words]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Class folders bar, cross, diamond."""
    folder = tmp_path_factory.mktemp("data")
    return drawn_images.draw(folder, task="shapes", classes=3, train_per_class=20, val_per_class=8)


def task(data):
    return ("--dataset", "Folder", "--data_dir", data, "--num_workers", 0, "--device", "cpu")


def tune(data, out, *options, size=SIZE):
    words = ("-a", out / "a.pth", "-b", out / "b.pth", "--arch", "resnet50_w8", "--max_epoch", 1)
    return call(finetune, *task(data), *words, "--image_size", size, "--batch_size", 20, *options)


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory):
    """r.pth, a.pth of step 1 at 32 pixels a side, b.pth of step 2 at SIZE, with their records."""
    out = tmp_path_factory.mktemp("tuned")
    words = ("--data_dir", data, "--num_workers", 0, "--device", "cpu", "--image_size", 32)
    words += ("-r", out / "r.pth", "-a", out / "a.pth", "--arch", "resnet50_w8", "--max_epoch", 1)
    assert call(pretrain_on_ImageNet, *words, "--batch_size", 20) == 0
    assert tune(data, out) == 0
    return out


@pytest.fixture
def copy(tuned, tmp_path):
    """The same files in a folder of the test's own."""
    return shutil.copytree(tuned, tmp_path / "copy")


def record_of(path):
    return json.loads(path.with_suffix(".json").read_text())


def change(path, **entries):
    """Write entries into X.json."""
    file = path.with_suffix(".json")
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def assert_refused(code, capsys, message):
    err = capsys.readouterr().err
    assert code == 2
    assert re.search(message, err), err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")


# Image size


def test_evaluation_is_at_the_size_of_the_training(data, copy, tmp_path, capsys):
    record = record_of(copy / "b.pth")
    assert record["args"]["image_size"] == SIZE
    right = f"accuracy {record['val_acc']:.2f} % of 24 images, loss"
    (tmp_path / "link.pth").symlink_to(copy / "b.pth")
    for path in (copy / "b.pth", tmp_path / "link.pth"):
        assert call(evaluate, *task(data), "-b", path) == 0
        printed = capsys.readouterr()
        assert right in printed.out
        assert f", {SIZE} pixels a side" in printed.out
        assert printed.err == ""


def test_another_size_than_that_of_the_training_is_warned_of(data, copy, capsys):
    for size, warned in ((SIZE, False), (64, True)):
        assert call(evaluate, *task(data), "-b", copy / "b.pth", "--image_size", size) == 0
        printed = capsys.readouterr()
        assert f", {size} pixels a side" in printed.out
        message = f"b.pth was trained at {SIZE} pixels a side, as b.json says; at --image_size 64"
        assert (message in printed.err) == warned


@pytest.mark.parametrize("size", [None, "40", True, -1, [40]])
def test_size_that_is_none_is_not_taken(data, copy, capsys, size):
    args = record_of(copy / "b.pth")["args"] | {"image_size": size}
    change(copy / "b.pth", args=args)
    assert call(evaluate, *task(data), "-b", copy / "b.pth", "--max_samples", 9) == 0
    printed = capsys.readouterr()
    assert ", 224 pixels a side" in printed.out
    assert ("b.json is not the record of a training run" in printed.err) == (size is not None)


def test_record_of_another_file_settles_nothing(data, copy, capsys):
    theta = torch.load(copy / "b.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in theta.items()}}, copy / "b.pth")
    change(copy / "b.pth", classes=["x", "y", "z"])
    assert call(evaluate, *task(data), "-b", copy / "b.pth") == 0
    printed = capsys.readouterr()
    assert ", 224 pixels a side" in printed.out
    assert "b.json is the record of another file than" in printed.err
    # With the sum of the container the record speaks of it.
    change(copy / "b.pth", sha256=sha256(copy / "b.pth"), classes=["bar", "cross", "diamond"])
    evaluate.read_record.cache_clear()
    assert call(evaluate, *task(data), "-b", copy / "b.pth") == 0
    assert f"accuracy {record_of(copy / 'b.pth')['val_acc']:.2f} %" in capsys.readouterr().out


def test_fine_tuning_keeps_its_own_size_and_says_that_of_theta_a(data, copy, capsys):
    for size in (32, SIZE):
        assert tune(data, copy, "-b", copy / f"b{size}.pth", "--max_steps", 1, size=size) == 0
        out = capsys.readouterr().out
        assert f"a.pth was trained at 32 pixels a side; this run takes {size}" in out
        assert record_of(copy / f"b{size}.pth")["args"]["image_size"] == size
    (copy / "a.json").unlink()
    evaluate.read_record.cache_clear()
    assert tune(data, copy, "-b", copy / "c.pth", "--max_steps", 1) == 0
    assert "was trained at" not in capsys.readouterr().out


def test_reset_is_at_the_size_and_of_the_classes_of_the_training(data, copy, capsys):
    words = ["reset", *task(data), "-r", copy / "r.pth", "-a", copy / "a.pth"]
    words = [*map(str, words), "-b", str(copy / "b.pth")]
    assert run(lambda: findings.main(words)) == 0
    accuracy = record_of(copy / "b.pth")["val_acc"]
    assert f"b.pth: accuracy {accuracy:.2f} % of 24 images" in capsys.readouterr().out
    change(copy / "b.pth", classes=["cross", "bar", "diamond"])
    evaluate.read_record.cache_clear()
    assert_refused(run(lambda: findings.main(words)), capsys, "in another order: label 0 is cross")


def test_factors_are_at_the_size_of_theta_a(tmp_path, capsys):
    data = tmp_path / "data"
    drawn_images.draw(data, classes=2, train_per_class=20, val_per_class=20)
    torch.manual_seed(0)
    checkpoint.write(tmp_path / "a.pth", build("resnet50_w8", 2).state_dict())
    record = {"steps": 1, "epochs": 1, "kept": "last", "kept_epoch": 1, "train_loss": 1.0}
    record |= {"sha256": sha256(tmp_path / "a.pth"), "args": {"image_size": SIZE}}
    (tmp_path / "a.json").write_text(json.dumps(record))
    words = ["factors", *task(data), "-a", tmp_path / "a.pth", "--source", "Folder"]
    words += ["--source_dir", data, "--csv", tmp_path / "f.csv"]
    assert run(lambda: findings.main(list(map(str, words)))) == 0
    printed = capsys.readouterr()
    assert f"source Folder:data, {SIZE} pixels a side" in printed.out
    assert printed.err == ""
    words += ["--image_size", 32]
    assert run(lambda: findings.main(list(map(str, words)))) == 0
    printed = capsys.readouterr()
    assert "source Folder:data, 32 pixels a side" in printed.out
    assert f"a.pth was trained at {SIZE} pixels a side" in printed.err


# Classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cross", "bar", "diamond"], "classes, the same in another order: label 0 is cross in b"),
        (["bar", "cross", "ring"], r"other classes: label 2 is ring in b\.json and diamond in Fol"),
        (["Bar", "cross", "diamond"], r"other classes: label 0 is Bar in b\.json and bar in Fold"),
    ],
)
def test_other_classes_than_those_of_the_training_are_an_error(data, copy, capsys, names, message):
    change(copy / "b.pth", classes=names)
    code = call(evaluate, *task(data), "-b", copy / "b.pth")
    assert_refused(code, capsys, message)


def test_accents_composed_in_another_way_are_the_same_class(copy, tmp_path, capsys):
    folder = drawn_images.draw(tmp_path / "data", task="shapes", classes=3, val_per_class=3)
    for split in ("train", "val"):  # as macOS writes it
        (folder / split / "cross").rename(folder / split / "ka\u0308fer")
    change(copy / "b.pth", classes=["bar", "diamond", "k\u00e4fer"])
    assert call(evaluate, *task(folder), "-b", copy / "b.pth") == 0
    capsys.readouterr()


def test_more_classes_than_those_of_the_training_are_an_error(copy, tmp_path, capsys):
    more = drawn_images.draw(tmp_path / "more", task="shapes", classes=4, val_per_class=3)
    code = call(evaluate, *task(more), "-b", copy / "b.pth")
    message = "a classifier of 3 classes, but Folder in .* has 4; the first 3 are those that"
    assert_refused(code, capsys, message)
    assert call(evaluate, *task(more), "-b", copy / "b.pth", "--max_classes", 3) == 0


# The same run again


def options_of(module, *words):
    return vars(module.parse_args([str(word) for word in words]))


@pytest.mark.parametrize("name", ["cifar10_model", "cifar10_500_model", "tiny_imagenet_model"])
def test_shipped_records_start_their_runs_again(name):
    path = SHIPPED / f"{name}.json"
    record = json.loads(path.read_text())
    module = finetune if record["script"] == "finetune.py" else pretrain_on_ImageNet
    plain, options = options_of(module, "--data_dir", "x"), options_of(module, "--config", path)
    taken = {k: v for k, v in record["args"].items() if k not in ("r", "a", "b", "resume")}
    # What came later than the record is at its default, as are the files.
    assert options == plain | taken
    assert list(options) == list(plain)


def test_same_run_again_gives_the_same_file(data, copy, tmp_path, capsys, monkeypatch):
    options = ("--lr", 0.02, "--optimizer", "adamw", "--keep", "last", "--seed", 3, "--drop_last")
    assert tune(data, copy, "-b", copy / "x.pth", "--max_steps", 4, *options) == 0
    monkeypatch.chdir(data.parent)
    change(copy / "x.pth", args=record_of(copy / "x.pth")["args"] | {"data_dir": data.name})
    config = copy / "x.json"
    words = ("--config", config, "-a", copy / "a.pth", "-b", tmp_path / "y.pth")
    assert call(finetune, *words) == 0
    assert sha256(tmp_path / "y.pth") == sha256(copy / "x.pth")
    args = [record_of(path)["args"] for path in (copy / "x.pth", tmp_path / "y.pth")]
    assert args[1] == args[0] | {"a": str(copy / "a.pth"), "b": str(tmp_path / "y.pth")}
    assert call(finetune, *words, "--resume") == 0
    assert "is finished; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--lr", "0.5"), {"lr": 0.5, "max_steps": 7}),
        (("--lr=0.5",), {"lr": 0.5}),
        (("--max_samples=30", "--keep", "best"), {"max_samples": 30, "keep": "best"}),
        # Either number alone says how long the run is.
        (("--max_epoch", "5"), {"max_epoch": 5, "max_steps": None}),
        (("--max_epoch=5",), {"max_epoch": 5, "max_steps": None}),
        (("--max_epoch=5", "--max_steps=3"), {"max_epoch": 5, "max_steps": 3}),
        (("--max_steps", "3"), {"max_epoch": 9, "max_steps": 3}),
        (("--no_drop_last",), {"drop_last": False}),
        (("--freeze", ""), {"freeze": None}),
        (("--resume",), {"resume": True, "overwrite": False}),
        (("-b", "other.pth", "-r", "r.pth"), {"b": "other.pth", "r": "r.pth"}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_options_that_are_given_win(tmp_path, words, expected, first):
    config = ("--config", write_config(tmp_path))
    options = options_of(finetune, *(*config, *words) if first else (*words, *config))
    recorded = {"lr": 0.25, "keep": "last", "drop_last": True, "data_dir": "-odd dir"}
    files = {"a": "ImageNet_model.pth", "b": "finetuned_model.pth", "r": None}
    wanted = recorded | files | expected
    assert {key: options[key] for key in wanted} == wanted


def write_config(folder, script="finetune.py", **args):
    args = {
        **{"data_dir": "-odd dir", "lr": 0.25, "keep": "last", "drop_last": True, "a": "mine.pth"},
        **{"b": "mine_b.pth", "r": "mine_r.pth", "resume": True, "overwrite": True},
        **{"max_epoch": 9, "max_steps": 7, "freeze": "fc.*", **args},
    }
    path = folder / "x.json"
    path.write_text(json.dumps({"script": script, "args": args}))
    return path


def test_bare_name_of_a_record_is_in_ckpt(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CKPT_DIR", tmp_path)
    write_config(tmp_path)
    assert options_of(finetune, "--config=x.json")["lr"] == 0.25


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"lr": -1}, r"x\.json: argument --lr: must be a number above 0, not '-1'"),
        ({"lr": None}, r"x\.json: --lr cannot be null"),
        ({"lr": True}, r"x\.json: --lr cannot be true"),
        ({"lr": False}, r"x\.json: argument --lr: must be a number above 0, not 'False'"),
        ({"lr": [0.1]}, r"x\.json: --lr cannot be \[0\.1\]"),
        ({"batch_size": 12.0}, r"x\.json: argument --batch_size: must be a whole number"),
        ({"keep": "first"}, r"x\.json: argument --keep: invalid choice: 'first'"),
        ({"arch": "resnet51"}, r"x\.json: argument --arch: invalid choice: 'resnet51'"),
        ({"drop_last": "yes"}, r'x\.json: --drop_last cannot be "yes"'),
        ({"drop_last": 1}, r"x\.json: --drop_last cannot be 1"),
        ({"data_dir": {}}, r"x\.json: --data_dir cannot be {}"),
        ({"momentum": 0.9}, r"x\.json: finetune\.py has no option --momentum"),
        ({"help": True}, r"x\.json: finetune\.py has no option --help"),
        ({"config": "x.json"}, r"x\.json: finetune\.py has no option --config"),
    ],
)
def test_options_in_a_record_that_cannot_be_are_one_line(tmp_path, capsys, args, message):
    code = call(finetune, "--config", write_config(tmp_path, **args))
    assert_refused(code, capsys, message)


def test_value_that_is_given_is_not_looked_at_in_the_record(tmp_path):
    config = write_config(tmp_path, lr=-1, arch="timm/none", device="cuda:77")
    words = ("--config", config, "--lr", 0.5, "--arch=resnet18", "--device", "cpu")
    assert options_of(finetune, *words)["arch"] == "resnet18"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no file .*x\.json; give the X\.json that finetune\.py wrote beside X\.pth"),
        ("", "is no record of a training run"),
        ("\x00\udcff", "is no record of a training run"),
        ("[1]", "is no record of a training run"),
        ("{}", "is no record of a training run"),
        ('{"script": "finetune.py"}', "is no record of a training run"),
        ('{"script": "finetune.py", "args": 3}', "is no record of a training run"),
        ('{"script": "finetune.py", "args": null}', "is no record of a training run"),
        ("[" * 100000, "is no record of a training run"),
        ('{"script": "pretrain_on_ImageNet.py", "args": {}}', "a record of pretrain_on_ImageNet"),
    ],
)
def test_file_that_is_no_record_of_the_script_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert_refused(call(finetune, "--config", path), capsys, message)


def test_folder_and_nothing_are_no_record(tmp_path, capsys):
    assert_refused(call(finetune, "--config", tmp_path), capsys, "there is no file")
    assert_refused(call(finetune, "--config"), capsys, "--config: expected one argument")


def test_options_that_neither_command_line_nor_record_gives_are_missing(tmp_path, capsys):
    path = write_config(tmp_path)
    content = json.loads(path.read_text())
    del content["args"]["data_dir"]
    path.write_text(json.dumps(content))
    message = "error: the following arguments are required: --data_dir"
    assert_refused(call(finetune, "--config", path), capsys, message)
    assert options_of(finetune, "--config", path, "--data_dir", "x")["lr"] == 0.25


# A part of the source in step 1


def pretrain(data, out, *options):
    words = ("--data_dir", data, "--num_workers", 0, "--device", "cpu", "--image_size", 32)
    words += ("-r", out / "r.pth", "-a", out / "a.pth", "--arch", "resnet50_w8", "--max_epoch", 2)
    return call(pretrain_on_ImageNet, *words, "--batch_size", 10, *options)


def test_step_1_draws_as_step_2_does(data, tmp_path, capsys):
    part = ("--max_classes", 2, "--max_samples", 14, "--seed", 5)
    assert pretrain(data, tmp_path, *part) == 0
    record = record_of(tmp_path / "a.pth")
    assert (record["classes"], record["train_images"]) == (["bar", "cross"], 14)
    assert (record["val_images"], record["steps"], record["last_batch"]) == (16, 4, 4)
    assert (record["args"]["max_classes"], record["args"]["max_samples"]) == (2, 14)
    for name in ("r.pth", "a.pth"):
        assert len(torch.load(tmp_path / name)["fc.bias"]) == 2

    # The images that step 2 draws are a data set of their own, which gives the same file.
    other = tmp_path / "other"
    drawn = draw(first_classes(find("Folder", data), 2).train, 14, seed=5).images
    for path in (*map(Path, drawn), *data.glob("val/bar/*"), *data.glob("val/cross/*")):
        target = other / "data" / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert pretrain(other / "data", other, "--seed", 5) == 0
    assert sha256(other / "a.pth") == record["sha256"]

    # The same settings go on, others do not.
    capsys.readouterr()
    assert pretrain(data, tmp_path, *part, "--resume") == 0
    assert "is finished; nothing to do" in capsys.readouterr().out
    code = pretrain(data, tmp_path, *part, "--resume", "--max_samples", 12)
    assert_refused(code, capsys, r"another max_samples \(14, now 12\)")


def test_part_of_the_source_that_cannot_be_is_one_line(data, tmp_path, capsys):
    for options, message in (
        (("--max_classes", 4), "--max_classes 4 must be from 2 to 3, the number of classes"),
        (("--max_classes", 1), "--max_classes: must be a whole number of at least 2"),
        (("--max_samples", 61), "--max_samples 61 is more than the 60 training images"),
        (("--max_samples", 2), "--max_samples 2 is less than the 3 classes"),
    ):
        assert_refused(pretrain(data, tmp_path, *options), capsys, message)
    words = ("--max_epoch", 0, "--arch", "resnet50_w8", "-r", tmp_path / "r.pth")
    code = call(pretrain_on_ImageNet, *words, "--max_classes", 1001)
    assert_refused(code, capsys, "--max_classes 1001: ImageNet has 1000 classes")


def test_theta_r_alone_is_of_the_classes_that_are_kept(data, tmp_path):
    words = ("--max_epoch", 0, "--arch", "resnet50_w8", "-r", tmp_path / "r.pth")
    for source, kept in (((), 7), (("--data_dir", data), 2)):
        assert call(pretrain_on_ImageNet, *words, *source, "--max_classes", kept) == 0
        assert len(torch.load(tmp_path / "r.pth")["fc.bias"]) == kept
        (tmp_path / "r.pth").unlink()
