"""The house rules: what import does, which way imports run, how large files grow."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import snflow

PACKAGE = Path(snflow.__file__).parent
LAYERS = ["errors", "numerics", "nets", "data", "bijections", "selfnorm", "distributions", "variational", "flows"]
LAYERS += ["testing", "plot", "train", "interop", "cli", "__main__"]
ORDER = {name: position for position, name in enumerate(LAYERS)}


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_is_light():
    heavy = ("torch", "matplotlib", "lightning_fabric", "sklearn", "scipy")
    assert run(f"import snflow, sys; print([m for m in {heavy} if m in sys.modules])").strip() == "[]"


def test_flows_need_neither_matplotlib_nor_lightning():
    code = "import snflow, sys; snflow.flows.dense((4,)); snflow.data.toy; print([m for m in sys.modules if m in {}])"
    assert run(code.format("('matplotlib', 'lightning_fabric')")).strip() == "[]"


def test_import_changes_no_global_state_of_torch():
    state = (
        "torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.initial_seed(), "
        "torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(), "
        "torch.backends.cudnn.benchmark, torch.distributions.Distribution._validate_args, "
        "torch.random.get_rng_state().sum().item()"
    )
    modules = [f"snflow.{p.relative_to(PACKAGE).with_suffix('').as_posix().replace('/', '.')}" for p in sources()]
    modules = [m.removesuffix(".__init__") for m in modules if not m.endswith("__main__")]
    imports = f"[importlib.import_module(m) for m in {modules}]"
    run(f"import torch, importlib\nbefore = {state}\n{imports}\nassert before == ({state})")


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def test_every_public_name_and_subpackage_is_there():
    packages = [path.parent.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("__init__.py")]
    for name in [package.as_posix().replace("/", ".") for package in packages]:
        module = importlib.import_module(name)
        assert set(module.__all__) <= set(dir(module))
        assert all(getattr(module, public) is not None for public in module.__all__)
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders <= set(snflow.__all__)


def test_one_version_everywhere():
    root = Path(__file__).parent.parent
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert declared == snflow.__version__
    assert f"version: {declared}\n" in (root / "CITATION.cff").read_text()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No snflow attribute Flw"):
        _ = snflow.Flw


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_run_downwards(path):
    home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if home == "__init__":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("snflow."):
                assert ORDER[name.split(".")[1]] <= ORDER[home], f"{path} imports {name}, which lies above it"


def test_no_drawers():
    assert not [p for p in PACKAGE.rglob("*") if p.stem in {"utils", "helpers", "misc", "common"}]
