"""Who may import whom, how large the folders may grow, and what they offer: read from the folders themselves.

The arrows are written once, in docs/architecture.md. A part of the package is a folder, or a file at its top.
"""

import ast
import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "encoding_nb"
ARROWS = ROOT / "docs" / "architecture.md"
WIDGETS = {"ipywidgets", "anywidget", "traitlets"}
LONGEST_PATH, MOST_MODULES, MOST_IN_A_FOLDER, MOST_AT_THE_TOP = 12, 105, 16, 12


def modules():
    """{dotted name: file}. A folder's name is that of its `__init__.py`; the package's own is ""."""
    paths = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}
    names = {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for parts, path in paths.items()
    }
    return dict(sorted(names.items()))


MODULES = modules()
FOLDERS = sorted(name for name, path in MODULES.items() if name and path.name == "__init__.py")


def part_of(module):
    return module.split(".")[0]


PARTS = sorted({part_of(module) for module in MODULES} - {""})


@dataclass(frozen=True)
class Import:
    """One import statement's name. `module` is one of ours (or None), `outside` a package that is not (or None)."""

    by: str
    module: str | None
    outside: str | None
    inside: str  # "file", "type" (under TYPE_CHECKING) or "function"
    line: int

    def __str__(self):
        file = MODULES[self.by].relative_to(PACKAGE)
        return f"{file}:{self.line} imports {self.outside or self.module or 'the package itself'}"


def imports_of(module):
    """Every import of a file, wherever in the file it is."""
    path, found = MODULES[module], []
    folder = path.relative_to(PACKAGE).parent.parts

    def add(node, inside):
        if isinstance(node, ast.Import):
            found.extend(
                Import(module, None, alias.name.split(".")[0], inside, node.lineno) for alias in node.names
            )
        elif node.level == 0:
            found.append(Import(module, None, node.module.split(".")[0], inside, node.lineno))
        else:
            up = len(folder) - (node.level - 1)
            base = folder[:up] + tuple((node.module or "").split(".") if node.module else ())
            for alias in node.names:
                full, short = ".".join((*base, alias.name)), ".".join(base)
                found.append(Import(module, full if full in MODULES else short, None, inside, node.lineno))

    def walk(node, inside):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inside = "function"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = "type"
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                add(child, inside)
            walk(child, inside)

    walk(ast.parse(path.read_text(encoding="utf-8")), "file")
    return found


IMPORTS = [each for module in MODULES for each in imports_of(module)]
OWN = [each for each in IMPORTS if each.module is not None]


def arrows():
    """{part: the parts that it may import}, in the order of docs/architecture.md, without what a chain adds."""
    page = ARROWS.read_text(encoding="utf-8")
    block = re.search(r"(?s)## Who may import whom.*?```text\n(.*?)```", page).group(1)
    found = {}
    for line in block.splitlines():
        left, right = (re.findall(r"[\w*]+", side) for side in line.split("->"))
        for part in left:
            found[part] = set(found) - set(left) if right == ["everything"] else set(right) - {"_*"}
    return found


def allowed():
    """{part: all that it may import}: what its arrow names, what those may import, and the shared files."""
    shared = {part for part in PARTS if part.startswith("_") and part != "__main__"}
    found = {part: set() for part in shared}
    for part, named in arrows().items():
        found[part] = shared.union(named, *(found[each] for each in named))
    return found


def edges_of_parts():
    """{part: the parts that its files import}, by any kind of import."""
    found = {part: set() for part in PARTS}
    for each in OWN:
        if each.by and each.module and part_of(each.by) != part_of(each.module):
            found[part_of(each.by)].add(part_of(each.module))
    return found


def longest_path(edges):
    """The longest chain of imports, from the part that imports to the part that is imported."""

    @cache
    def below(part):
        return (part, *max((below(other) for other in edges[part]), key=len, default=()))

    return max((below(part) for part in edges), key=len)


def sentences(found):
    return "\n".join(map(str, found))


def test_arrows_name_every_part_and_only_what_is_above():
    parts = [part for part in PARTS if part == "__main__" or not part.startswith("_")]
    assert sorted(arrows()) == sorted(parts), f"the arrows in {ARROWS.name} do not name the parts that exist"
    above = set()
    for part, named in arrows().items():
        assert named <= above, f"{part} -> {', '.join(named - above)}: an arrow names what is above it"
        above.add(part)


def test_imports_follow_the_arrows():
    known = allowed()
    found = [
        each
        for each in OWN
        if each.by
        and part_of(each.by) != part_of(each.module)
        and part_of(each.module) not in known[part_of(each.by)]
    ]
    assert not found, f"the arrows in docs/{ARROWS.name} do not admit:\n{sentences(found)}"


def test_inside_the_package_imports_are_relative():
    found = [each for each in IMPORTS if each.outside == PACKAGE.name]
    assert not found, sentences(found)


def test_other_folders_import_from_the_folder():
    """Never from a file inside it, and never from the package's root, whose names are for users."""
    found = [
        each
        for each in OWN
        if part_of(each.by) != part_of(each.module) and (each.module == "" or "." in each.module)
    ]
    assert not found, sentences(found)


def test_files_inside_other_folders_are_not_reached_by_a_dot():
    """`ridge.cv.ridge_cv` after `from .. import ridge`."""
    for module, path in MODULES.items():
        folders = {each.module for each in OWN if each.by == module} - {part_of(module)}
        inside = {each for each in MODULES if "." in each and part_of(each) in folders}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            used = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            assert used not in inside, f"{module}:{node.lineno} uses {used}"


def test_only_other_packages_are_imported_inside_functions():
    """What takes long to import, or may be missing. Our own files and Python's are imported at the top.

    But for Python's `http`, which brings ssl and email: 7 MB.
    """
    at_the_top = {*sys.stdlib_module_names, "numpy", PACKAGE.name} - {"http"}
    found = [
        each for each in IMPORTS if each.inside == "function" and (each.outside or "numpy") in at_the_top
    ]
    assert not found, sentences(found)


def test_only_the_root_imports_its_own_modules_by_a_string():
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func).split(".")[-1] if isinstance(node, ast.Call) else ""
            if module and called in ("import_module", "__import__"):
                named = ast.unparse(node.args[0])
                assert re.fullmatch(r"'\w+'", named), f"{module}:{node.lineno} imports {named}"


def test_no_circle_of_files():
    edges = {module: set() for module in MODULES}
    for each in OWN:
        edges[each.by].add(each.module)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        circle = [module or PACKAGE.name for module in error.args[1]]
        pytest.fail(f"these import each other in a circle: {' <- '.join(circle)}")


def test_longest_path_of_imports():
    path = longest_path(edges_of_parts())
    assert len(path) <= LONGEST_PATH, " -> ".join(path)


def test_sizes():
    assert len(MODULES) <= MOST_MODULES
    at_the_top = [path.name for path in PACKAGE.glob("*.py")]
    assert len(at_the_top) <= MOST_AT_THE_TOP, at_the_top
    for folder in FOLDERS:
        files = [path.name for path in (PACKAGE / folder).rglob("*.py")]
        assert len(files) <= MOST_IN_A_FOLDER, f"{folder}: {files}"


def test_only_the_panel_imports_widgets():
    found = [each for each in IMPORTS if each.outside in WIDGETS and part_of(each.by) != "panel"]
    assert not found, sentences(found)


def names_bound(path):
    """Public names that a folder's `__init__.py` makes or imports from its files."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def in_order(names):
    """Constants, classes, functions, each by name."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_offers_what_it_lists(folder):
    listed = import_module(f"{PACKAGE.name}.{folder}").__all__
    assert listed == in_order(listed)
    assert names_bound(MODULES[folder]) == set(listed)


def test_the_root_offers_what_the_folders_list():
    root = import_module(PACKAGE.name)
    assert root.__all__ == sorted(root.__all__)
    for part, names in root._HOME.items():
        names = set(names.split())
        listed = getattr(import_module(f"{PACKAGE.name}.{part}"), "__all__", names)
        assert names <= set(listed), f"{part} does not list {', '.join(names - set(listed))}"


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_no_module_bears_the_name_of_a_public_function(folder):
    """`sweep/run_sweep.py` would take the place of the function `run_sweep`."""
    files = {module.split(".")[-1] for module in MODULES if module.rpartition(".")[0] == folder}
    listed = import_module(f"{PACKAGE.name}.{folder}".rstrip(".")).__all__
    assert not files & set(listed)


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_public_names_are_functions_classes_or_constants(folder):
    for module in MODULES:  # a module that is imported later must not take the place of a name
        import_module(f"{PACKAGE.name}.{module}".rstrip("."))
    home = import_module(f"{PACKAGE.name}.{folder}".rstrip("."))
    for name in home.__all__:
        value = getattr(home, name)
        assert not isinstance(value, ModuleType), f"{name} is a module"
        if inspect.isroutine(value) or inspect.isclass(value):
            described = inspect.getdoc(value) if inspect.isroutine(value) else value.__dict__.get("__doc__")
            assert described and not described.startswith(f"{name}("), f"{name} has no docstring"


@pytest.mark.parametrize(
    ("imported", "heavy"),
    [
        (
            "encoding_nb",
            ["torch", "cortex", "nilearn", "ipywidgets", "transformer_lens", "matplotlib", "sklearn"],
        ),
        # 100 MB in every kernel that would not need them
        ("encoding_nb.pipeline, encoding_nb.datasets", ["torch", "cortex", "sklearn", "pandas", "himalaya"]),
    ],
)
def test_imports_are_light(imported, heavy):
    code = f"import sys, {imported}; print(sorted({set(heavy)} & set(sys.modules)))"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"


def test_longest_path_is_found():
    assert longest_path({"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a"}}) == ("c", "b", "a")
