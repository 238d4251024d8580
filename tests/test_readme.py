"""What README says works: its Python runs, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_examples_run():
    torch.set_default_dtype(torch.float32)
    namespace = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert set(namespace["snflow"].testing.check(namespace["snflow"].SmoothLeakyReLU(), (5,)).values()) == {"ok"}


def test_examples_of_the_page_on_flows_run():
    torch.set_default_dtype(torch.float32)
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "flows.md").read_text(), re.DOTALL):
        exec(compile(block, "docs/flows.md", "exec"), namespace)
    assert namespace["score"].shape == (8, 5)
    assert namespace["together"].shape == (3, 8)
    assert set(namespace["report"].values()) == {"ok"}
    assert set(namespace["snflow"].testing.check(namespace["foreign"], (5,)).values()) == {"ok"}


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)$", README, re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_command_lines_name_real_commands_recipes_and_options():
    from snflow.cli.main import main
    from snflow.train.recipe import load_recipe
    from snflow.train.typed import field_types

    lines = re.findall(r"^snflow (\w+)(.*)$", README, re.MULTILINE)
    assert {command for command, _ in lines} == {"recipes", "fit", "evaluate", "sample", "reproduce"}
    for command, rest in lines:
        assert main([command, "--help"]) == 0
        words = rest.split()
        if command == "fit" and words[0] != "--resume":
            recipe = load_recipe(words[0])
            for option in re.findall(r"--(\w+)\.(\w+)", rest):
                assert option[1] in field_types(type(recipe.sections()[option[0]]))


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"
