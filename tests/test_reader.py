"""Tables: what is read, which rows compare, and rows that several processes write."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from console import InputError
from findings import published
from findings.reader import comparable_rows, read_column, read_json, read_table, upsert

# Reading


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; its first line must name the columns"),
        (b"# only a comment\n\n , \n", "is empty; its first line must name the columns"),
        (b"CIFAR-10,2.27,50000\nDTD,0.7,1880\n", "line 1: the header must .* not '2.27'"),
        (b"dataset,,T\n", "line 1: the header must give each column its own name, not ''"),
        (b"#\ndataset,T, T\n", "line 2: the header must give each column its own name, not 'T'"),
        (b"dataset,T\na,1\nb,2,3\n", r"line 3 \(b\) has 3 cells; the header has 2"),
        (b"dataset,T\n#\n\nb\n", r"line 4 \(b\) has 1 cells; the header has 2"),
        (b"dataset,T\na,1\nb,2\na, 1\n", r"line 4 \(a\) repeats line 2; remove one of them"),
        (b'dataset,T\n"a,1\n', "line 2: unexpected end of data; give a CSV file"),
        (b"\x89PNG\xff\xfe\n", "is not UTF-8 text; save it as CSV in UTF-8 with comm"),
    ],
)
def test_wrong_table_is_one_line(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


EXPORT = "save it as CSV in UTF-8 with commas between the cells and a point in decimals"


@pytest.mark.parametrize(
    ("content", "encoding", "reason"),
    [
        ("dataset;T\na;1.5\n", "utf-8", r"line 1 has semicolons between its cells"),
        ("dataset;T\r\na;1,5\r\n", "utf-8-sig", "line 1 has semicolons between its cells"),
        ('"dataset";"T"\n"a";"1,5"\n', "utf-8", "line 1 has semicolons between its cells"),
        ("# a, b\n\ndataset;T\na;1,5\n", "utf-8", "line 3 has semicolons between its cells"),
        ("dataset\tT\na\t1,5\n", "utf-8", "line 1 has tabs between its cells"),
        ("dataset|T\na|1.5\n", "utf-8", "line 1 has bars between its cells"),
        ("sep=;\ndataset;T\na;1,5\n", "utf-8", "line 1 is sep=;, which is no header"),
        ("SEP=,\ndataset,T\na,1.5\n", "utf-8", "line 1 is SEP=,, which is no header"),
        ("dataset\tT\na\t1.5\n", "utf-16", "it is UTF-16 text"),
        ("dataset,T\na,1.5\n", "utf-16-le", "it is UTF-16 text, or none"),
        ("dataset,T\na,1.5\n", "utf-16-be", "it is UTF-16 text, or none"),
        ("dataset,T\nB\u00e4r,1.5\n", "latin-1", "it is not UTF-8 text"),
        ("PK\x03\x04\x14\x00\x06\x00", "latin-1", "it is a spreadsheet"),
    ],
)
def test_table_in_another_dialect_is_refused_with_the_reason(tmp_path, content, encoding, reason):
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode(encoding))
    with pytest.raises(InputError, match=f"{reason}.*; {EXPORT}") as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_decimal_commas_are_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('dataset,T\na,"1,5"\n')
    with pytest.raises(InputError, match="'1,5' is not a number; write decimals with a point, and"):
        read_column(read_table(path), "T")
    path.write_text("dataset,T\na,1,5\n")
    with pytest.raises(InputError, match="has 3 cells; the header has 2; decimals need a point"):
        read_table(path)


def test_other_separators_inside_cells_are_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("dataset,T;x|y\nseveral; of\tthem,1\n")
    assert read_table(path).rows.values.tolist() == [["several; of\tthem", "1"]]


def test_missing_table_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: No such file or directory; give a CSV file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="Is a directory"):
        read_table(tmp_path)


def test_table_of_a_spreadsheet(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbf# source\r\ndataset, N,T\r\n"a, b",5_0, 2\r\n,,\r\n')
    table = read_table(path)
    assert (table.columns, table.notes) == (["dataset", "N", "T"], ["source"])
    assert [(line, table.name(line)) for line in table.rows.index] == [(3, "a, b")]
    assert read_column(table, "log_N") == pytest.approx([np.log(50)])


def test_words_of_other_programs_are_text(tmp_path):
    """A start named null, or a data set NA, is no missing value."""
    path = tmp_path / "t.csv"
    path.write_text("start,dataset,lr\nnull,NA,1e-4\n,nan,007\n")
    assert read_table(path).rows.values.tolist() == [["null", "NA", "1e-4"], ["", "nan", "007"]]


def test_columns_by_other_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name,samples,classes,log_D,D\na,10,2,7,0\n")
    table = read_table(path)
    assert [read_column(table, name)[0] for name in ("N", "K", "log_D", "D")] == [10, 2, 7, 0]
    assert table.name(2) == "a"
    path.write_text("name,samples,train_images\na,10,12\n")
    with pytest.raises(InputError, match="N could be samples or train_images; rename one"):
        read_column(read_table(path), "log_N")


def test_missing_column_of_a_wide_table_shows_eight(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(",".join(["dataset", "start", *(f"T layer{i}" for i in range(61))]) + "\n")
    with pytest.raises(InputError) as caught:
        read_column(read_table(path), "G")
    assert str(caught.value) == (
        f"{path} has no column G (or domain_gap); it has 63: dataset, start, T layer0, T layer1, "
        "T layer2, T layer3, T layer4, T layer5, ..."
    )


@pytest.mark.parametrize(("content", "message"), [("", "Expecting value"), ("[]", "no JSON obj")])
def test_wrong_json_is_one_line_with_advice(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=rf"x\.json.*{message}.*; remove it"):
        read_json(tmp_path / "x.json", advice="remove it")


# Rows of a study that compare

STUDY = "dataset,start,classes,batch_size,lr,weight_decay,a_sha256,N,T"
PLAIN = "x,theta_A,10,128,0.01,0.0001"


def kept(path, rows, header=STUDY):
    """Lines of the rows that compare, and the notes on the others."""
    path.write_text("\n".join([header, *rows]) + "\n")
    table, notes = comparable_rows(read_table(path))
    return list(table.rows.index), notes


def test_rows_of_a_study_that_compare(tmp_path):
    rows = [
        "x,null,10,128,0.01,0.0001",
        PLAIN,
        "x,theta_A,10,32,0.01,0.0001",
        "x,theta_A,10,128,1e-2,1e-4",  # the same numbers, written in another way
        "x,theta_A,5,128,0.01,0.0001",
        PLAIN,
    ]
    rows = [f"{row},aa,{i},1" for i, row in enumerate(rows)]
    lines, notes = kept(tmp_path / "t.csv", rows)
    assert lines == [3, 5, 7]
    assert notes == [
        "1 of 6 rows left out, whose start is not theta_A",
        "1 of 6 rows left out, which differ from the rest in batch_size; kept: batch_size 128",
        "1 of 6 rows left out, with other classes than most of their data set; kept: dataset x, "
        "classes 10",
    ]


def test_data_sets_of_a_study_compare_with_their_own_classes(tmp_path):
    rows = [f"{x},theta_A,{k},128,0.01,0.0001,aa,9,1" for x, k in (("a", 10), ("b", 5), ("c", 2))]
    assert kept(tmp_path / "t.csv", rows) == ([2, 3, 4], [])


def test_rows_of_another_theta_a_do_not_compare(tmp_path):
    """Their SHA-256 are compared as text, though they look like numbers."""
    sums = [(word + "0" * 61) for word in ["1e5"] * 2 + ["1E5"] * 3]
    rows = [f"{PLAIN},{x},{i},1" for i, x in enumerate(sums)]
    lines, notes = kept(tmp_path / "t.csv", rows)
    assert lines == [4, 5, 6]
    assert notes == [
        "2 of 5 rows left out, which differ from the rest in a_sha256; kept: a_sha256 1E500000"
    ]


def test_shipped_study_keeps_its_grid():
    whole = read_table(published.TABLE.with_name("results.csv"))
    table, notes = comparable_rows(whole)
    grid = {"start": "theta_A", "classes": "10", "batch_size": "128", "weight_decay": "0.0001"}
    expected = whole.rows[(whole.rows[list(grid)] == list(grid.values())).all(axis=1)]
    assert table.rows.equals(expected)
    assert len(expected) >= 40
    assert notes[-1].endswith("; kept: dataset CIFAR-10, classes 10")


def test_rows_without_start_all_compare(tmp_path):
    assert kept(tmp_path / "t.csv", ["a,1", "b,2"], "dataset,T") == ([2, 3], [])
    lines, notes = kept(tmp_path / "t.csv", ["theta_A,1", "null,2"], "start,T")
    assert (lines, len(notes)) == ([2], 1)
    none = kept(tmp_path / "t.csv", ["null,2"], "start,T")
    assert none == ([], ["1 of 1 rows left out, whose start is not theta_A"])


def test_run_of_a_study_that_is_there_twice_is_an_error(tmp_path):
    rows = ["x,theta_A,500,200,0,4", "x,theta_A,500,800,0,5", "x,theta_A,5e2,200.0,0,6"]
    with pytest.raises(InputError) as caught:
        kept(tmp_path / "t.csv", rows, "dataset,start,N,steps,seed,T")
    assert str(caught.value).endswith(
        "t.csv line 4 (x) is of the same run as line 2: seed 0, N 5e2, steps 200.0; remove one of "
        "them"
    )


# Writing


def put(path, key=("name",), **row):
    return upsert(path, row, key=key)


def test_row_replaces_the_one_of_the_same_key_and_others_stay(tmp_path):
    path = tmp_path / "t.csv"
    assert not put(path, name="a", G=1 / 3, N=10)
    assert not put(path, name="b", G=2.0, N=20)
    assert path.read_text() == "name,G,N\na,0.333333333,10\nb,2,20\n"
    # As a spreadsheet writes it, with a column of the user's.
    text = '\ufeff# A, "note"\r\n#\r\nT,name,G,N\r\n"7,5",a,0.3,10\r\n# between\r\n8,b,2,20\r\n'
    path.write_text(text, newline="")
    assert put(path, name="b", G=3, N=30)
    assert not put(path, name="c\n# no comment", G=4, N=40)
    assert path.read_text() == (
        '# A, "note"\n#\n# between\nT,name,G,N\n"7,5",a,0.3,10\n8,b,3,30\n,"c\n# no comment",4,40\n'
    )
    assert read_table(path).rows["name"][7] == "c\n# no comment"


def put_twenty(path, number):
    for seed in range(20):
        put(path, key=("name", "seed"), name=number, seed=seed)


def test_processes_that_write_at_once_lose_no_row(tmp_path):
    path = tmp_path / "t.csv"
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(put_twenty, [path] * 4, range(4)))
    rows = sorted((name, int(seed)) for name, seed in read_table(path).rows.values)
    assert rows == [(str(i), seed) for i in range(4) for seed in range(20)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t.csv", "t.csv.lock"]
