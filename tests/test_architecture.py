"""Who may import whom: ``core.losses`` only torch, modalities never each other, benchmarks never tests."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODALITIES = ("image", "graph", "sentence")
# What each package may import of the project, itself included; it also applies to imports inside functions.
ALLOWED = {
    "core": {"core"},
    "shared_eval": {"core", "shared_eval"},
    **{modality: {"core", "shared_eval", modality} for modality in MODALITIES},
    "benchmarks": {"core", "shared_eval", "benchmarks", *MODALITIES},
    "tests": {"core", "shared_eval", "benchmarks", "tests", *MODALITIES},
}
LOSSES = ROOT / "core" / "losses"


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The absolute name of every module that a file imports, and whether the import is relative."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            # ``from package import name`` may import a module.
            yield from ((f"{module}.{alias.name}", node.level > 0) for alias in node.names)


def is_below(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_it_may(package):
    forbidden = ALLOWED.keys() - ALLOWED[package]
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for module, _ in imports(path)
        if any(is_below(module, other) for other in forbidden)
    ]
    assert not wrong


def test_losses_import_only_themselves_torch_and_the_standard_library():
    """By relative imports, so that the folder can be copied into another project.

    triton and typing_extensions come with torch.

    Losses for another library are in a file of its name, which may import it.
    """
    allowed = {"torch", "triton", "typing_extensions", *sys.stdlib_module_names}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted(LOSSES.rglob("*.py"))
        for module, is_relative in imports(path)
        if not (
            is_below(module, "core.losses") if is_relative else module.split(".")[0] in allowed | {path.stem}
        )
    ]
    assert not wrong


def test_importing_core_loads_nothing_heavy_but_torch():
    code = "import sys, core; print(sorted({'sklearn', 'tyro', 'torch_geometric'} & sys.modules.keys()))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("modality", MODALITIES)
def test_evaluation_does_not_name_what_one_modality_alone_trains(modality):
    """Neither a plain objective nor a slug of an option; recipes name them, and records bring them.

    The temperature is a setting of every modality, and of nearest neighbours.
    """
    config = next(
        value
        for value in vars(import_module(f"{modality}.config")).values()
        if isinstance(value, type) and value.__dict__.get("modality") == modality
    )
    slugs = [option.slug.partition("{")[0] for option in config.objective_options().values()]
    names = {config.plain_objective, *filter(None, slugs)} - {"temperature"}
    found = [
        (path.name, name)
        for path in sorted((ROOT / "shared_eval").rglob("*.py"))
        for name in names
        if re.search(rf"\b{name}\b", path.read_text())
    ]
    assert not found
