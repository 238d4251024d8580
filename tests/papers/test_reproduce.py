"""The paper's runner: every target in its smallest form, resumed, and never two settings in one line."""

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from cli.test_cli import FILES
from pages import against_exact, by_epoch, grouped, mean_and_spread, write_page
from pictures import seconds_until
from records import BUSY, Record, merged, read_records, write_records
from reproduce import main
from targets import ROOT, TARGETS, Row, Target, recipe_of, reference_of

SMALL = "flow.width=4,training.batch_size=5,training.threads=1"
DENSE = "training.batch_size=5,training.threads=1"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for name, write in FILES.items():
        (folder / name).mkdir(parents=True)
        write(folder / name)
    return folder


@pytest.fixture
def command(tmp_path, data, capsys, monkeypatch):
    """The command with the test's own folders, at one commit; returns the exit code and the page."""
    monkeypatch.setattr("reproduce.commit", lambda: "0" * 40)

    def run(target, *words):
        places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "results"), "--device", "cpu"]
        code = main([target, *places, "--data", str(data), *words])
        page = tmp_path / "results" / target / "README.md"
        return code, page.read_text() if page.exists() else capsys.readouterr().err

    return run


def record(row="a", seed=0, settings="s", **changes):
    summary = {"test_nll_nats": 1.0 + seed, "test_bits_per_dim": 0.5, "train_seconds": 60.0}
    content = {"epochs": 1, "full_epochs": 1, "folder": "f", "command": "c", "commit": None, "machine": "m"}
    content |= {"summary": summary, "diverged": None, "metrics": [], "layers": []}
    return Record(row, seed, settings, **(content | changes))


@pytest.mark.parametrize("target", TARGETS)
def test_every_row_is_a_different_recipe_with_changes_that_fit(target):
    rows = TARGETS[target].rows
    assert len({row.name for row in rows}) == len(rows)
    recipes = [recipe_of(row, {"training.seed": 1}) for row in rows]
    assert {recipe.training.seed for recipe in recipes} == {1}
    assert len({recipe.digest() for recipe in recipes}) == len(rows)


def test_every_recipe_of_a_row_is_what_snflow_fit_is_given():
    for row in {row.recipe: row for target in TARGETS.values() for row in target.rows}.values():
        reference = reference_of(row.recipe)
        assert reference == row.recipe or (ROOT / reference).is_file()


@pytest.mark.parametrize("words", [["table1", "--seeds", "0"], ["table1", "--sedes", "1"], []])
def test_a_wrong_command_line_ends_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "error" in capsys.readouterr().err


def test_it_runs_as_a_script():
    script = ROOT / "papers" / "self_normalizing_flows" / "reproduce.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert "--seeds" in done.stdout


def test_the_committed_pages_are_those_of_the_committed_results(tmp_path):
    for name, target in TARGETS.items():
        committed = ROOT / "results" / name
        if (committed / "README.md").is_file():
            shutil.copytree(committed, tmp_path / name)
            write_page(tmp_path / name, name, target)
            assert (tmp_path / name / "README.md").read_text() == (committed / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel1"], "did you mean 'table1'?"),
        (["table1", "--rows", "dens_snf"], "did you mean 'dense_snf'?"),
        (["table1", "--set", "width"], "--set: expected section.option=value"),
        (["table1", "--rows", "digits_snf", "--set", "flow.widht=3"], "did you mean 'width'"),
    ],
)
def test_a_users_error_is_one_line(words, message, tmp_path, capsys):
    assert main([*words, "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "rows", "changes"),
    [
        ("table1", "dense_snf,dense_exact_fast", DENSE),
        ("table2", "cifar10_snf", SMALL),
        ("table4", "dense_0.1,dense_0.1_unguarded", DENSE),
        ("table5", "snf_5x5", SMALL),
        ("figure2", "dense_snf", DENSE),
        ("figure3", "dense_snf", DENSE),
        ("figure5", "dense_exact,dense_snf", DENSE),
    ],
)
def test_every_target_of_trained_rows(target, rows, changes, command, tmp_path):
    code, page = command(target, "--rows", rows, "--epochs", "1", "--seeds", "1", "--set", changes)
    assert code == 0, page
    for row in rows.split(","):
        assert re.search(rf"\| {re.escape(row)} \| \*\*short: 1\*\* of \d+ \| 1 \| [\d.]+ \|", page)
    kept = read_records(tmp_path / "results" / target / "runs.jsonl")
    assert [r.row for r in kept] == rows.split(",")
    assert ("picture.png" in page) == (target in ("figure2", "figure3", "figure5"))
    if "picture.png" in page:
        assert (tmp_path / "results" / target / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize(("target", "rows"), [("table3", "dense_exact,dense_snf"), ("figure4", "exact,snf")])
def test_every_target_of_times(target, rows, tmp_path):
    out = tmp_path / "results"
    words = ["--rows", rows, "--seconds", "0.01", "--largest", "128", "--out", str(out), "--device", "cpu"]
    assert main([target, *words]) == 0
    page = (out / target / "README.md").read_text()
    lines = [json.loads(line) for line in (out / target / "times.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines[1:]] == rows.split(",")
    if target == "table3":
        snf = next(line for line in lines if line.get("row") == "dense_snf")
        exact = next(line for line in lines if line.get("row") == "dense_exact")
        assert (
            f"| dense_snf | {snf['batch_ms']:.1f} | {exact['batch_ms'] / snf['batch_ms']:.2f} | 18.7 | 2.40 |" in page
        )
        assert {"learned_1_ms", "exact_1_ms", "learned_100_ms", "exact_100_ms"} <= snf.keys()
        assert "learned_1_ms" not in exact
    else:
        assert re.search(r"\| 32 \| [\d.]+ \| [\d.]+ \|\n\| 128 \|", page)
        assert (out / target / "picture.png").exists()


def test_the_overview_has_what_was_run_and_lists_what_was_not(command, tmp_path):
    command("table1", "--rows", "dense_snf", "--epochs", "1", "--seeds", "1", "--set", DENSE)
    out = ["--out", str(tmp_path / "results"), "--page", str(tmp_path / "docs" / "paper.md")]
    small = ["--seconds", "0.01", "--largest", "32", "--device", "cpu"]
    assert main(["figure4", "--rows", "exact,snf", *small, *out[:2]]) == 0
    assert main(["overview", *out]) == 0
    page = (tmp_path / "docs" / "paper.md").read_text()
    assert "[Table 1: MNIST, exact test NLL](../results/table1/README.md)" in page
    assert re.search(r"\| dense_snf \| \*\*short: 1\*\* of 6000 \|", page)
    assert re.search(r"\| dimension \| exact \| snf \|", page)
    assert "(../results/figure4/picture.png)" in page
    assert page.count("Not run yet.") == len(TARGETS) - 2


def test_a_stopped_command_continues_and_finished_runs_are_read(command, tmp_path, monkeypatch):
    words = ["--rows", "dense_snf", "--epochs", "2", "--seeds", "2", "--set", DENSE]
    original, steps = torch.nn.utils.get_total_norm, []

    def counted(grads):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return original(grads)

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", counted)
    assert command("table1", *words)[0] == 128 + signal.SIGTERM
    assert not (tmp_path / "results").exists()
    code, page = command("table1", *words)
    assert code == 0
    assert re.search(r"\| dense_snf \| \*\*short: 2\*\* of 6000 \| 2 \| [\d.]+ ± [\d.]+ \| 947.1 \|", page)
    trained = len(steps)
    assert command("table1", *words)[1] == page
    assert len(steps) == trained


def test_different_settings_have_different_lines(command):
    base = ["--rows", "dense_snf", "--seeds", "1", "--set", DENSE]
    command("table1", *base, "--epochs", "1")
    page = command("table1", *base, "--epochs", "2")[1]
    lines = [line for line in page.splitlines() if line.startswith("| dense_snf |")]
    assert [line.split("|")[2].strip() for line in lines] == ["**short: 1** of 6000", "**short: 2** of 6000"]
    assert len({line.split("|")[8] for line in lines}) == 2


def test_a_run_that_diverged_is_a_result(command, monkeypatch):
    from snflow.train import loop

    words = ["--rows", "dense_snf", "--epochs", "1", "--seeds", "1", "--set", DENSE]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "estimated_nll", lambda *rest: (float("nan"), None))
        code, page = command("table1", *words)
    assert code == 0
    assert "| dense_snf | **short: 1** of 6000 | 1 | diverged | 947.1 | – |" in page
    assert "ended with: " in page
    assert command("table1", *words)[1] == page


def test_groups_and_means():
    records = [record(seed=0), record(seed=1), record(settings="t", epochs=3), record(row="b")]
    groups = grouped(Row("a", "digits_conv"), records)
    assert [[(r.settings, r.seed) for r in g] for g in groups] == [[("s", 0), ("s", 1)], [("t", 0)]]
    assert mean_and_spread([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"
    again = record(seed=1, epochs=1, command="newer")
    assert merged(records, [again])[1].command == "newer"
    assert len(merged(records, [again])) == len(records)


def test_rows_are_compared_with_the_exact_one_only_at_equal_settings():
    target = Target("t", "likelihood", (Row("e", "digits_conv"), Row("a", "digits_conv", exact="e")))
    twice = {"test_nll_nats": 2.0, "test_bits_per_dim": 0.5, "train_seconds": 120.0}
    records = [
        record("e", 0, "x", summary=twice),
        record("e", 1, "x", summary=None, diverged="lost"),
        record("e", 0, "y", epochs=3, summary=twice),
        record("a", 0, "s"),
        record("a", 1, "s"),
        record("a", 0, "t", epochs=3, changes={"optimizer.learning_rate": 1.0}),
        record("a", 0, "u", epochs=4),
    ]
    lines = against_exact(target, records)
    assert lines[4:] == ["| a | e | 1 | 1 | 1.00 | 2.00 | -50.00 % | 0.50 |", ""]


def test_every_exact_row_exists():
    for target in TARGETS.values():
        if target.kind == "likelihood":
            names = {row.name for row in target.rows}
            assert {row.exact for row in target.rows} - {None} <= names


def test_runs_of_different_models_or_lengths_are_in_different_tables():
    courses = [[{"epoch": e, "validation_nll": 2.0} for e in range(n + 1)] for n in (1, 2, 2)]
    names = ("a_x", "a_x", "b_x")
    records = [record(name, epochs=len(c) - 1, metrics=c) for name, c in zip(names, courses, strict=True)]
    heads = [line for line in by_epoch(TARGETS["table1"], records) if " epochs |" in line]
    assert heads == ["| a, 1 epochs | 0 | 1 |", "| a, 2 epochs | 0 | 1 | 2 |", "| b, 2 epochs | 0 | 1 | 2 |"]


def test_seconds_of_epochs_without_a_row():
    rows = [{"epoch": float(e), "train_seconds": s} for e, s in ((0, 0.0), (2, 3.0), (4, 5.0))]
    assert seconds_until(record(metrics=rows), [2.0, 4.0]) == [6.0, 16.0]


def test_a_time_names_the_accelerator_and_a_busy_machine(tmp_path):
    def on(row, machine, device):
        summary = {"test_nll_nats": 2.0, "test_bits_per_dim": 0.5, "train_seconds": 60.0, "device": device}
        return record(row, machine=machine, summary=summary)

    records = [
        on("digits_exact", f"2 cores, {BUSY}", "cpu"),
        on("digits_snf", "2 cores", "cpu"),
        on("digits_newton", "a GPU, 16 cores", "cuda"),
    ]
    write_records(tmp_path / "runs.jsonl", records)
    write_page(tmp_path, "table1", TARGETS["table1"])
    lines = (tmp_path / "README.md").read_text().split("\n## ")[0].splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[7].strip() for line in lines if line.startswith("| digits_")}
    assert cells["digits_exact"] == "1.0 min (busy machine)"
    assert cells["digits_snf"] == "1.0 min"
    assert cells["digits_newton"] == "1.0 min (a GPU)"
