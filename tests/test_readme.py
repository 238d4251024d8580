"""README and docs: the Python runs, the commands exist, the links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def run_examples(page):
    """Execute the Python blocks of a page in one namespace, and return it."""
    torch.set_default_dtype(torch.float32)
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        exec(compile(block, page, "exec"), namespace)
    return namespace


def test_examples_of_the_first_page_run():
    names = run_examples("README.md")
    assert {"flow", "layer", "batch", "images"} <= names.keys()
    assert set(names["snflow"].testing.check(names["snflow"].SmoothLeakyReLU(), (5,)).values()) == {"ok"}


def test_examples_of_the_page_on_flows_run():
    names = run_examples("docs/flows.md")
    assert names["score"].shape == (8, 5)
    assert names["together"].shape == (3, 8)
    assert set(names["report"].values()) == {"ok"}
    assert set(names["snflow"].testing.check(names["foreign"], (5,)).values()) == {"ok"}


def test_examples_of_the_page_on_tracking_run():
    assert "snflow" in run_examples("docs/tracking.md")


def test_examples_of_the_page_on_estimators_run():
    names = run_examples("docs/estimators.md")
    assert names["model"].predict([[170, 65], [170, 150]]).tolist() == [1, -1]
    assert set(names["rows"]["city"]) <= {"Rome", "Oslo"}
    assert names["interval"].shape == (3, 2)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)$", README, re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/tracking.md", "docs/reproducing.md"])
def test_commands_name_real_recipes_and_options(page):
    from snflow.cli.main import main
    from snflow.train import load_recipe

    for command, rest in re.findall(r"^(?:    )?snflow (\w+)(.*)$", (ROOT / page).read_text(), re.MULTILINE):
        assert main([command, "--help"]) == 0
        words = rest.split("  ")[0].split("#")[0].split()
        if command == "fit" and words[0] not in ("--resume", "mine.yaml", "RECIPE"):
            recipe = load_recipe(words[0])
            sections = recipe.to_dict()
            for section, option in re.findall(r"--(\w+)\.(\w+)", rest):
                assert option in sections[section]


def test_the_first_page_shows_every_command():
    assert {command for command, _ in re.findall(r"^snflow (\w+)(.*)$", README, re.MULTILINE)} == {
        "recipes",
        "fit",
        "evaluate",
        "sample",
        "score",
    }


@pytest.mark.parametrize("page", ["README.md", "docs/flows.md"])
def test_every_ready_flow_is_on_the_page(page):
    from snflow.flows import ready_flows

    text = (ROOT / page).read_text()
    assert [name for name in ready_flows() if not re.search(rf"`(flows\.)?{name}\b", text)] == []


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "results/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_the_page_on_reliability_names_tests_that_exist():
    names = set(re.findall(r"`((?:\w+/)?\w+\.py)`", (ROOT / "docs" / "reliability.md").read_text()))
    assert len(names) > 20
    for name in names:
        assert list(ROOT.glob(f"tests/**/{name}")) or list(ROOT.glob(f"src/**/{name}")), name
