"""One's own tables and images from the shell: fit, evaluate, score, sample, and data that have changed."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from snflow.cli.main import main
from snflow.train.run_folder import load_run

SMALL = ["--flow.layers", "1", "--flow.width", "8", "--epochs", "1", "--batch_size", "40", "--device", "cpu"]


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def said_by(capsys, *words, code=0):
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def write(path, rows=200, seed=0):
    """A table in which a dose moves a level, with a count and a name that is no number."""
    draw = np.random.default_rng(seed)
    dose = draw.uniform(0, 2, rows)
    level = 10 * dose + draw.normal(size=rows)
    count = draw.poisson(3, rows)
    lines = [f"{count[n]};id {n};{dose[n]:.6f};{level[n]:.6f}" for n in range(rows)]
    path.write_text("\n".join(["count;name;dose;level", *lines]).replace(".", ","))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write(folder / "mine.csv")
    words = ["fit", "table_neural_spline", "--data.path", folder / "mine.csv", "--data.drop_columns", "name"]
    words += ["--data.context_columns", "[dose]", "--data.integer_columns", "count", "--out", folder / "run", *SMALL]
    assert main([str(word) for word in words]) == 0
    return folder


def test_a_conditional_density_of_a_table(trained, capsys):
    run = load_run(trained / "run")
    assert run.flow.bijection.context_shape == (1,)
    assert [column.name for column in run.columns.columns] == ["count", "level"]
    assert run.context_columns == ["dose"]
    assert (trained / "run" / "samples.png").is_file()
    summary = json.loads((trained / "run" / "summary.json").read_text())
    said = said_by(capsys, "evaluate", trained / "run")
    assert f"exact test NLL of the best checkpoint: {summary['test_nll_nats']:.6f} nats" in said


def test_samples_are_a_table_like_the_data(trained, tmp_path, capsys):
    words = ["sample", trained / "run", "-n", 30, "--out", tmp_path / "s.csv"]
    said_by(capsys, *words, "--context", "{dose: 1.5}")
    header, *rows = rows_of(tmp_path / "s.csv")
    assert header == ["count", "level"]
    assert len(rows) == 30
    assert all(count.isdecimal() and "." in level for count, level in rows)
    assert "--context: expected a value for dose, got nothing" in said_by(capsys, *words, code=2)
    assert "a value for dose, got age" in said_by(capsys, *words, "--context", "{age: 40}", code=2)
    assert "--n: expected n ≥ 1, got 0" in said_by(capsys, "sample", trained / "run", "-n", 0, code=2)


def test_scores_of_a_new_table(trained, tmp_path, capsys):
    lines = write(tmp_path / "new.csv", rows=20, seed=1).read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join([*lines, "3;far away;1,0;900,5"]))
    said = said_by(capsys, "score", trained / "run", tmp_path / "new.csv", "--out", tmp_path / "scores.csv")
    assert "21 rows, mean log-density" in said
    header, *rows = rows_of(tmp_path / "scores.csv")
    assert header == ["count", "name", "dose", "level", "log_prob", "outlier"]
    assert [";".join(row[:4]) for row in rows[:-1]] == lines[1:]
    assert rows[-1][:4] == ["3", "far away", "1,0", "900,5"]
    assert rows[-1][-1] == "1"
    assert float(rows[-1][-2]) < min(float(row[-2]) for row in rows[:-1])
    said = said_by(
        capsys, "score", trained / "run", trained / "mine.csv", "--quantile", 0, "--out", tmp_path / "all.csv"
    )
    assert "200 rows" in said
    (tmp_path / "less.csv").write_text("\n".join(line.rpartition(";")[0] for line in lines))
    for words, message in (
        (["score", trained / "run", tmp_path / "less.csv"], "a name in the header, got 'level'"),
        (["score", trained / "run", tmp_path / "none.csv"], "none.csv"),
        (["score", trained / "run", tmp_path / "scores.csv"], "expected a table without scores"),
        (
            ["score", trained / "run", tmp_path / "new.csv", "--quantile", "2"],
            "--quantile: expected a number from 0 to 1",
        ),
    ):
        assert message in said_by(capsys, *words, "--out", tmp_path / "x.csv", code=2)


def test_changed_data_are_refused(trained, tmp_path, capsys):
    path, content = trained / "mine.csv", (trained / "mine.csv").read_text()
    try:
        path.write_text(content.replace("id 7", "another name"))  # in a column that is not used
        said_by(capsys, "evaluate", trained / "run")
        path.write_text(content[: content.rindex("\n")])
        for words in (
            ["evaluate", trained / "run"],
            ["score", trained / "run", path],
            ["fit", "--resume", trained / "run", "--epochs", 2],
        ):
            assert "expected the data on which the run was trained, mine.csv, got changed rows" in said_by(
                capsys, *words, code=2
            )
        path.unlink()
        said = said_by(capsys, "evaluate", trained / "run", code=2)
        assert "restore the data, which are described in" in said
        assert "set path" not in said
    finally:
        path.write_text(content)


def test_seconds_since_1970_need_float64(tmp_path, capsys):
    draw = np.random.default_rng(0)
    np.save(tmp_path / "t.npy", np.stack([1.7e9 + draw.uniform(0, 3600, 300), draw.normal(size=300)], 1))
    words = ["fit", "table_neural_spline", "--data.path", tmp_path / "t.npy", *SMALL]
    capsys.readouterr()
    assert main([str(word) for word in [*words, "--out", tmp_path / "single"]]) == 0
    assert "snflow: warning: t.npy: float32 rounds column '0'" in capsys.readouterr().err
    assert main([str(word) for word in [*words, "--out", tmp_path / "double", "--training.precision", "64-true"]]) == 0
    assert capsys.readouterr().err == ""
    said_by(capsys, "sample", tmp_path / "double", "-n", 200, "--out", tmp_path / "s.csv")
    times = np.array(rows_of(tmp_path / "s.csv")[1:], dtype=float)[:, 0]
    assert len(np.unique(times)) == 200
    assert abs(times - 1.7e9 - 1800).max() < 3e4
    moments = load_run(tmp_path / "double").flow.bijection[0]
    assert moments.shift.dtype == moments.scale.dtype
    assert abs(float(moments.scale[0]) - 3600 / 12**0.5) < 100


def test_a_flow_without_contexts_is_refused(tmp_path, capsys):
    path = write(tmp_path / "mine.csv")
    words = ["fit", "table_dense", "--data.path", path, "--data.drop_columns", "[name, count]", "--device", "cpu"]
    said = said_by(capsys, *words, "--data.context_columns", "dose", "--out", tmp_path / "run", code=2)
    assert "flow.name: expected a flow that is conditioned on contexts, one of bnaf" in said
    assert "got 'dense'" in said


def test_options_of_other_programs_have_a_suggestion(capsys):
    assert "did you mean '--learning_rate'?" in said_by(capsys, "fit", "table_dense", "--lr", "1", code=2)


@pytest.mark.parametrize("gray", ["false", "true"])
def test_a_folder_of_images(tmp_path, capsys, gray):
    draw = np.random.default_rng(0)
    (tmp_path / "mine").mkdir()
    for number in range(20):
        pixels = draw.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "mine" / f"{number}.{'png' if number % 2 else 'jpg'}")
    words = ["fit", "images_glow_snf", "--data.path", tmp_path / "mine", "--data.size", 8, "--flow.scales", 1]
    said_by(capsys, *words, "--data.gray", gray, "--out", tmp_path / "run", *SMALL[:-4], "--batch_size", 8, *SMALL[-2:])
    said_by(capsys, "sample", tmp_path / "run", "-n", 3, "--out", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").shape == (3, 1 if gray == "true" else 3, 8, 8)
    said = said_by(capsys, "sample", tmp_path / "run", "--out", tmp_path / "s.csv", code=2)
    assert "--out: expected a file that ends in .png or .npy" in said
