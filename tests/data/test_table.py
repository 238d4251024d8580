"""Tables from files: all delimiters and headers, and errors that name line and column."""

import contextlib
import struct

import numpy as np
import pytest
import torch

from snflow.data import Dataset, table
from snflow.data.delimited import _CHUNK
from snflow.errors import ConfigError, DataError, DataWarning, NumericalWarning


def everything(dataset):
    """All rows, sorted by the first column, as in a file in which it ascends."""
    rows = torch.cat([dataset.train, dataset.validation, dataset.test])
    return rows[rows[:, 0].argsort()]


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


ROWS = [(row + 0.25, row * row + 0.5, -(row * row % 7) * 1e-3) for row in range(20)]
EXPECTED = torch.tensor(ROWS, dtype=torch.float64)


def body(delimiter, end="\n"):
    return "".join(f"{x}{delimiter}{y}{delimiter}{z!r}{end}" for x, y, z in ROWS)


@pytest.mark.parametrize(
    "text",
    [
        body(","),
        body("\t"),
        body(";"),
        body(" "),
        body("   "),
        body(", "),
        body(",", "\r\n"),
        "\ufeff" + body(","),
        "x,y,z\n" + body(","),
        '# "x","y","z"\n' + body(","),
        "# made by hand\n# x,y,z\n\n" + body(",") + "\n# the end\n",
        '"x"\t"y"\t"z"\n' + body("\t"),
        '"x, in m","y","z"\n' + body(","),
        '"x in m" y z\n' + body(" "),
        body(",").replace("0.5", '"0.5"', 1),
        "#x y z\n" + body(" "),
        body(",").rstrip("\n"),
        body(",").replace("0.25,0.5", "0.25,\t0.5", 1),
    ],
)
def test_text(write, text):
    read = table(write(text))
    assert torch.equal(everything(read), EXPECTED)
    assert read.train.dtype == torch.float64
    assert read.num_values is None
    assert [len(read.train), len(read.validation), len(read.test)] == [16, 2, 2]


@pytest.mark.parametrize("save", ["npy", "npz", "f4", "i8", "big_endian"])
def test_arrays(tmp_path, save):
    values = EXPECTED.numpy()
    path = tmp_path / ("a.npz" if save == "npz" else "a.npy")
    expected, warned = EXPECTED, contextlib.nullcontext()
    if save == "npz":
        np.savez_compressed(path, only=values)
    elif save == "i8":
        np.save(path, values.astype(np.int64))
        expected, warned = EXPECTED.trunc(), pytest.warns(DataWarning)
    else:
        np.save(path, values.astype({"f4": "<f4", "big_endian": ">f8"}.get(save, "<f8")))
        expected = EXPECTED.float().double() if save == "f4" else EXPECTED
    with warned:
        assert torch.equal(everything(table(str(path))), expected)


def test_columns_by_number_and_by_name(write):
    path = write("x,y,z\n" + body(","))
    assert torch.equal(everything(table(path, columns=["x", 2])), EXPECTED[:, [0, 2]])
    assert torch.equal(everything(table(path, columns=[0, "y"])), EXPECTED[:, :2])
    assert torch.equal(everything(table(path, drop_columns=["y"])), EXPECTED[:, [0, 2]])


def test_columns_of_an_array(tmp_path):
    np.save(tmp_path / "a.npy", EXPECTED.numpy())
    read = table(str(tmp_path / "a.npy"), drop_columns=[1])
    assert torch.equal(everything(read), EXPECTED[:, [0, 2]])


def test_a_dropped_column_may_hold_words(write):
    path = write("".join(f"{x}\t{y}\tg\n" for x, y, _ in ROWS), "magic.data")
    assert torch.equal(everything(table(path, drop_columns=[2])), EXPECTED[:, :2])
    with pytest.raises(DataError, match=r"magic\.data, line 1, column 2: expected a number, got 'g'"):
        table(path)


def test_split_is_a_function_of_seed_and_fractions(write):
    path = write(body(","))
    first, again, other = (table(path, seed=seed).train for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    wide = table(path, validation_fraction=0.25, test_fraction=0.5)
    assert [len(wide.train), len(wide.validation), len(wide.test)] == [5, 5, 10]


def test_relative_path_is_looked_up_in_the_environment(write, tmp_path, monkeypatch):
    write(body(","), "here.csv")
    monkeypatch.setenv("SNFLOW_DATA", str(tmp_path))
    assert torch.equal(everything(table("here.csv")), EXPECTED)
    monkeypatch.delenv("SNFLOW_DATA")
    with pytest.raises(DataError, match=r"table: expected a file at here\.csv, got none; set path"):
        table("here.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n3,abc\n", r"line 3, column 1 \('y'\): expected a number, got 'abc'; repair it"),
        ("1,2\n3,\n", "line 2, column 1: expected a number, got nothing"),
        ("1,abc\n3,4\n", "line 1, column 1: expected a number, got 'abc'"),
        ("1,2\n3,1_000\n", "line 2, column 1: expected a number, got '1_000'"),
        ("1,2\n3,4,5\n", "line 2: expected 2 fields separated by commas, got 3; repair"),
        ("1 2\n\n3\n", "line 3: expected 2 fields separated by whitespace, got 1"),
        ("x,y\n1,2\n3,nan\n4,5\n", r"finite numbers, got nan in row 1, column 'y'; remove or impute such rows"),
        ("1,2\n-inf,3\n", "finite numbers, got -inf in row 1, column '0'"),
        ("", "at least one row, got none"),
        ("# only a comment\n\n", "at least one row, got none"),
        ("x,y\n", "train split: expected at least one row, got none"),
        ("1.5,2\n3,4.5\n", "validation split: expected at least one row, got none"),
        (b"\xff\xfe1,2\n", "a text file in UTF-8, got bytes that are not"),
        (",\n1,2\n", "line 1, column 0: expected a number, got nothing"),
        ('"1,000",2\n3,4\n', r"line 1, column 0: expected a number, got '1,000'; write it without separators"),
        ('1,2\n3,"4,000"\n', r"line 2, column 1: expected a number, got '4,000'; write it without separators"),
        ('"1,000","2,000"\n3,4\n', "line 1, column 0: expected a number, got '1,000'"),  # not a header
        ("1'000;2'000\n3;4\n", 'line 1, column 0: expected a number, got "1\'000"'),
        ('"1 000" 2\n3 4\n', "line 1, column 0: expected a number, got '1 000'"),
    ],
)
def test_wrong_text(write, text, message):
    with pytest.raises(DataError, match=message) as error:
        table(write(text))
    assert "table.csv" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["weigth"]}, r"a name in the header, got 'weigth'; did you mean 'weight'"),
        ({"columns": [3]}, "a column number from 0 to 2 or a name in the header, got 3"),
        ({"drop_columns": [-1]}, "a column number from 0 to 2 or a name in the header, got -1"),
        ({"drop_columns": [0, 1, 2]}, "at least one column, got none"),
    ],
)
def test_wrong_columns(write, options, message):
    with pytest.raises(ConfigError, match=message):
        table(write("weight,height,age\n" + body(",")), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 0.0}, "data.table: expected 0 < validation_fraction < 1, got 0.0"),
        ({"test_fraction": 1.0}, "data.table: expected 0 < test_fraction < 1, got 1.0"),
        (
            {"validation_fraction": 0.5, "test_fraction": 0.5},
            r"validation_fraction \+ test_fraction < 1, got 1",
        ),
        ({"columns": [0], "drop_columns": [1]}, "either columns or drop_columns, got both"),
    ],
)
def test_options_out_of_range(write, options, message):
    with pytest.raises(ConfigError, match=message):
        table(write(body(",")), **options)


def test_a_name_without_a_header(write):
    with pytest.raises(ConfigError, match="a column number from 0 to 2; no header, got 'x'"):
        table(write(body(",")), columns=["x"])


def with_header(text, version=b"\x01\x00"):
    """A file of zeros behind this header of an array."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(text) + 1) + text.encode("latin1") + b"\n" + bytes(64)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000000)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551616, 3)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 3)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3)}",
        "{'descr': '<q99', 'fortran_order': False, 'shape': (2, 3)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,",
        "-" * 9000 + "1",
        "(" * 5000,
        "\0",
        "ÿþ",
    ],
)
def test_a_damaged_header_is_named(tmp_path, header):
    path = tmp_path / "a.npy"
    path.write_bytes(with_header(header))
    with pytest.raises(DataError, match=r"a\.npy: expected an array of numbers"):
        table(str(path))


@pytest.mark.parametrize(
    ("local", "central", "field"),
    [(6, 8, b"\x01\x00"), (8, 10, b"\x63\x00"), (8, 10, b"\x08\x00"), (4, 6, b"\xff\xff")],
    ids=["encrypted", "unknown compression", "wrong compression", "future version"],
)
def test_a_damaged_member_of_an_archive_is_named(tmp_path, local, central, field):
    path = tmp_path / "a.npz"
    np.savez(path, rows=np.zeros((20, 2)))
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = content.index(signature) + at
        content[start : start + 2] = field
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: expected an array of numbers"):
        table(str(path))


class Payload:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: np.save(path, np.zeros(5)), r"shape \(5,\) of float64; reshape a single column to \(-1, 1\)"),
        (lambda path: np.save(path, np.zeros((5, 2, 2))), r"\(rows, columns\), got shape \(5, 2, 2\) of float64"),
        (lambda path: np.save(path, np.zeros((5, 2), complex)), "real numbers with .* of complex128"),
        (lambda path: np.save(path, np.array([["a", "b"]])), "real numbers with .* of <U1"),
        (lambda path: np.save(path, np.array([[Payload()]], object), allow_pickle=True), "an array of numbers"),
        (lambda path: np.save(path, np.array([[1.0, np.nan]])), "finite numbers, got nan in row 0, column '1'"),
        (lambda path: path.write_bytes(b"no array"), "an array of numbers"),
        (lambda path: path.write_bytes(b""), "an array of numbers"),
    ],
)
def test_wrong_arrays(tmp_path, make, message):
    path = tmp_path / "a.npy"
    make(path)
    with pytest.raises(DataError, match=message) as error:
        table(str(path))
    assert "a.npy" in str(error.value)


def test_truncated_arrays(tmp_path):
    for name, save in (("a.npy", np.save), ("a.npz", np.savez)):
        path = tmp_path / name
        save(path, np.zeros((100, 3)))
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(DataError, match=f"{name}: expected an array of numbers"):
            table(str(path))


def test_array_is_chosen_by_key(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, rows=EXPECTED.numpy(), other=np.zeros((30, 1)))
    assert torch.equal(everything(table(str(path), key="rows")), EXPECTED)
    with pytest.raises(ConfigError, match=r"one of rows, other, got None; set key"):
        table(str(path))
    with pytest.raises(ConfigError, match=r"got 'row'; did you mean 'rows'"):
        table(str(path), key="row")


def test_decimal_commas(write):
    for delimiter in (";", "\t", " "):
        assert torch.equal(everything(table(write(body(delimiter).replace(".", ",")))), EXPECTED)
    quoted = "".join('"{}","{}","{}"\n'.format(*map(repr, row)).replace(".", ",") for row in ROWS)
    assert torch.equal(everything(table(write(quoted), decimal=",")), EXPECTED)


def test_numbers_that_may_be_in_thousands_or_fractions_are_refused(write):
    path = write("".join(f"{row + 1},234;{row + 1},500\n" for row in range(20)))
    with pytest.raises(DataError, match=r"got '1,234', which may have a decimal comma or a separator of thousands"):
        table(path)
    assert float(everything(table(path, decimal=",", columns=1))[0]) == 1.5


def test_a_wrong_field_far_below_is_named(write):
    lines = [f"{row / 8},{row**2 / 8}\n" for row in range(_CHUNK + 10)]
    lines[_CHUNK + 5] = "1,1_000\n"
    with pytest.raises(DataError, match=f"line {_CHUNK + 6}, column 1: expected a number, got '1_000'"):
        table(write("".join(lines)))
    lines[_CHUNK + 5] = "1\n"
    with pytest.raises(DataError, match=f"line {_CHUNK + 6}: expected 2 fields separated by commas, got 1"):
        table(write("".join(lines)))


def test_contexts(write):
    path = write("x,age,y\n" + body(","))
    read = table(path, context_columns="age")
    assert torch.equal(everything(read), EXPECTED[:, [0, 2]])
    assert [column.name for column in read.columns.columns] == ["x", "y"]
    assert read.context_columns == ("age",)
    for split in ("train", "validation", "test"):
        rows, context = read.split(split)
        assert torch.equal(context[:, 0], (rows[:, 0] - 0.25) ** 2 + 0.5)
    assert torch.equal(table(path, context_columns=[1]).train_context, read.train_context)
    assert table(path, columns="x", context_columns=["y", "age"]).train_context.shape == (16, 2)
    with pytest.raises(ConfigError, match="columns or context_columns, got 'age' in both"):
        table(path, columns=["x", "age"], context_columns="age")


def test_integers_get_noise_and_other_whole_numbers_a_warning(write):
    path = write("count,x\n" + "".join(f"{row * row % 7},{row / 8}\n" for row in range(40)))
    with pytest.warns(DataWarning, match="whole numbers.*'count'.*integers"):
        plain = table(path)
    noisy = table(path, integer_columns="count")
    assert torch.equal(noisy.train[:, 0].floor(), plain.train[:, 0])
    assert not torch.equal(noisy.train[:, 0], plain.train[:, 0])
    assert torch.equal(noisy.train[:, 1], plain.train[:, 1])
    assert torch.equal(noisy.train, table(path, integer_columns=[0]).train)
    with pytest.raises(DataError, match="column 'x': expected integers"):
        table(path, integer_columns=["count", "x"])
    with pytest.raises(ConfigError, match="integer_columns among the columns of the density, got 'count'"):
        table(path, columns="x", integer_columns="count")


@pytest.mark.parametrize(
    ("third", "problem"),
    [
        (lambda row: 2.5, "constant: 'z'"),
        (lambda row: 3 * row - 1.25, "equal up to scale and shift: 'x' and 'z'"),
    ],
)
def test_columns_without_a_density_are_named(write, third, problem):
    path = write("x,y,z\n" + "".join(f"{row + 0.5},{row * row / 8},{third(row + 0.5)}\n" for row in range(20)))
    with pytest.warns(DataWarning, match=problem):
        table(path)


def test_a_repeated_name_gets_a_number(write):
    path = write("x,y,x\n" + body(","))
    with pytest.warns(DataWarning, match="'x' more than once; column 2 is called 'x_2' here: rename it"):
        read = table(path, columns=["x_2", "y"])
    assert torch.equal(everything(read)[:, 0].sort().values, EXPECTED[:, 2].sort().values)


def test_float32_that_cannot_hold_a_column_is_named(tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[:, 1] = 1.7e9 + 3600 * np.random.default_rng(1).random(200)
    np.save(tmp_path / "a.npy", rows)
    read = table(tmp_path / "a.npy")
    assert len(read.train[:, 1].unique()) == 160
    read.check_precision(torch.float64)
    with pytest.warns(NumericalWarning, match="float32 rounds column '1' by up to 6.*64-true"):
        read.check_precision(torch.float32)
    np.save(tmp_path / "b.npy", 1000 + rows[:, :1])
    table(tmp_path / "b.npy").check_precision(torch.float32)
    huge = 1e300 * torch.tensor(rows[:, :1])
    with pytest.raises(DataError, match=r"in float32: expected finite numbers, got -?inf in row 0, column 0; train in"):
        Dataset("huge", huge, huge, huge).check_precision(torch.float32)


def test_the_fingerprint_is_that_of_the_content(write):
    text = body(",")
    one, moved, changed = write(text), write(text, "b.csv"), write(text.replace("0.25", "0.26", 1), "c.csv")
    assert table(one).fingerprint == table(moved).fingerprint != table(changed).fingerprint
    assert table(one, seed=1).fingerprint != table(one).fingerprint
    assert table(one, context_columns=2).fingerprint != table(one, drop_columns=2).fingerprint


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        with pytest.raises(DataError, match=r"a\.parquet: expected pyarrow.*pip install 'snflow\[parquet\]'"):
            table(path)
        return
    with pytest.raises(DataError, match=r"a\.parquet: expected a Parquet file"):
        table(path)
    columns = {name: EXPECTED[:, number].numpy() for number, name in enumerate("xyz")}
    parquet.write_table(pyarrow.table({**columns, "label": ["a"] * 20, "gap": [None] + [1.5] * 19}), path)
    assert torch.equal(everything(table(path, columns=["x", 1, "z"])), EXPECTED)
    with pytest.raises(DataError, match="column 'label': expected numbers, got string"):
        table(path, columns="label")
    with pytest.raises(DataError, match="finite numbers, got nan in row 0, column 'gap'"):
        table(path, columns="gap")
