"""The design's import directions, and an import that stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "encoding_nb"
# A stage is one module, or one with the parts it was cut into.
STAGES = {
    "assembly": {"assembly", "assembly_checks", "lazy", "from_arrays"},
    "stimuli": {"stimuli", "textgrid", "textgrid_values"},
    "machine": {"machine", "blas_threads"},
    "activations": {
        "activations",
        "extraction",
        "loading",
        "models",
        "model_files",
        "hub",
        "activation_cache",
    },
    "design": {"design", "downsampling"},
    "features": {"features", "word_vectors"},
    "ridge": {
        "ridge",
        "ridge_inputs",
        "problem",
        "fitting",
        "held_out",
        "refit",
        "folds",
        "solvers",
        "side_by_side",
    },
    "scoring": {"scoring", "permutation", "columns"},
    "records": {"records", "record_reading", "record_tables", "loggers"},
    "pipeline": {
        "pipeline",
        "settings",
        "setting_values",
        "setting_rows",
        "matrices",
        "kept_inputs",
        "preparing",
        "estimates",
        "provenance",
    },
    "brain": {
        "brain",
        "surfaces",
        "store",
        "mappers",
        "painting",
        "keyed_maps",
        "overlays",
        "svg",
        "regions",
        "colours",
        "figures",
        "webgl",
    },
    "plots": {
        "plots",
        "plot_parts",
        "design_plots",
        "comparison_plots",
        "region_plots",
        "voxel_plots",
        "word_lanes",
    },
    "sweep": {
        "sweep",
        "sweep_engine",
        "sweep_grid",
        "sweep_outline",
        "sweep_shared",
        "sweep_stages",
        "sweep_tables",
    },
}
STAGE_OF = {module: stage for stage, modules in STAGES.items() for module in modules}
MAY_IMPORT = {
    "__init__": set(),
    "assembly": set(),
    "notes": set(),
    "ridge": {"machine"},
    "scoring": set(),
    "machine": set(),
    "worker": set(),
    "design": set(),
    "stimuli": {"assembly", "notes"},
    "brain": {"assembly", "scoring", "machine"},
    "activations": {"stimuli", "machine", "notes"},
    "features": {"assembly", "activations", "design", "notes"},
    "datasets": {"assembly", "stimuli", "features", "design", "brain"},
    "pipeline": {
        "__init__",
        "assembly",
        "activations",
        "features",
        "design",
        "ridge",
        "scoring",
        "machine",
        "notes",
    },
    "partitioning": {"assembly", "activations", "pipeline", "ridge", "scoring"},
    "plots": {"assembly", "design", "pipeline", "partitioning", "brain", "scoring"},
}
MAY_IMPORT["records"] = {"__init__", "assembly", "brain", "pipeline", "plots"}
MAY_IMPORT["running"] = {"assembly", "pipeline", "records"}
MAY_IMPORT["sweep"] = {"assembly", "activations", "design", "machine", "pipeline", "records"}
MAY_IMPORT["sweep_plots"] = {"brain", "plots", "sweep", "pipeline"}
MAY_IMPORT["litcoder"] = {
    "assembly",
    "activations",
    "datasets",
    "design",
    "features",
    "pipeline",
    "records",
    "ridge",
    "running",
    "scoring",
}
MAY_IMPORT["panel"] = set(MAY_IMPORT) - {"__init__"}
MAY_IMPORT["__main__"] = MAY_IMPORT["panel"] | {"panel"}
WIDGETS = {"ipywidgets", "anywidget"}


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_by(path: Path) -> tuple[set[str], set[str]]:
    """Names of the package's own modules and of outside packages that a file imports, anywhere in it."""
    own, outside = set(), set()
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            own |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return own, outside


SOURCES = [p for p in sorted(PACKAGE.rglob("*.py")) if "demo_data" not in p.parts]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_what_the_design_allows(path):
    own, outside = imported_by(path)
    module = module_of(path)
    stage = STAGE_OF.get(module, module)
    stages = {"__init__" if name == "__version__" else STAGE_OF.get(name, name) for name in own}
    refused = stages - MAY_IMPORT[stage] - {stage}
    assert "encoding_nb" not in outside, "inside the package imports are relative"
    assert not refused, f"{path.name} may not import {refused}"
    if module != "panel":
        assert not outside & WIDGETS, "widgets stand in panel/ only"


def test_import_is_light():
    code = (
        "import sys, encoding_nb; "
        "print(sorted({'torch', 'cortex', 'ipywidgets', 'transformer_lens', 'matplotlib'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import encoding_nb

    for name in encoding_nb.__all__:
        assert getattr(encoding_nb, name).__doc__, f"{name} has no docstring"
