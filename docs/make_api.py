"""Write api.md from the docstrings of the public names.

python docs/make_api.py
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import encoding_nb  # noqa: E402

PAGE = ROOT / "docs" / "api.md"
HEAD = """# Public names

Made from the docstrings by `docs/make_api.py` (`make docs`): do not edit. All of these are imported from
`encoding_nb`, and each also from the folder or file in its heading: `encoding_nb.ridge_cv` is
`encoding_nb.ridge.ridge_cv`. Words are explained in the [glossary](glossary.md).
"""


def home(value: Any) -> str:
    """The file that a name is written in, as a link."""
    file = Path(inspect.getfile(value)).relative_to(ROOT).as_posix()
    return f"[`{file.removeprefix('encoding_nb/')}`](../{file})"


def signature(name: str, value: Any) -> str:
    """`name(arguments)`, without annotations where they are long."""
    if inspect.isclass(value) and not value.__module__.startswith("encoding_nb.panel"):
        fields = getattr(value, "__dataclass_fields__", None)
        if fields is not None:
            return f"class {name}({', '.join(fields)})"
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return name
    bare = [p.replace(annotation=p.empty, default=in_order(p.default)) for p in parameters]
    return f"{name}{inspect.Signature(bare)}"


def in_order(default: Any) -> Any:
    """A set as a list in order, since a set's own order differs from run to run."""
    return sorted(default) if isinstance(default, (set, frozenset)) else default


def referred(value: Any, described: str, *, public: bool = False) -> list[tuple[str, Any]]:
    """Functions of the same module that a docstring leaves the description of its arguments to.

    `public` ones have an entry of their own, and are left out unless asked for.
    """
    module = inspect.getmodule(value)
    names = dict.fromkeys(re.findall(r"`(?:\w+\.)?(\w+)`", described))
    found = [
        (name, getattr(module, name, None)) for name in names if public or name not in encoding_nb.__all__
    ]
    return [
        (name, other)
        for name, other in found
        if inspect.isfunction(other) and "Raises" in (other.__doc__ or "")
    ]


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for folder, names in encoding_nb._HOME.items():
        parts.append(f"## {folder.removeprefix('_')}\n")
        for name in names.split():
            value = getattr(encoding_nb, name)
            if isinstance(value, dict):
                parts.append(f"### {name}\n\nA dict with the keys {', '.join(map(repr, value))}.\n")
                continue
            described = inspect.getdoc(value) or ""
            parts.append(f"### {name}\n\nIn {home(value)}.\n\n{block(name, value, described)}")
            for other, target in referred(value, described):
                parts.append(f"It refers to:\n\n{block(other, target, inspect.getdoc(target))}")
    return "\n".join(parts)


def block(name: str, value: Any, described: str) -> str:
    """Signature and docstring."""
    return f"```python\n{signature(name, value)}\n```\n\n```text\n{described}\n```\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
