"""The imports of a Python package, as JSON: `python python_imports.py FOLDER` prints {module: [imported, …]}.

Those inside of functions and for type checkers alone count too. An imported name that is a module is that module.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path


def main(package: Path) -> None:
    files = {module_of(path, package): path for path in sorted(package.rglob("*.py"))}
    print(json.dumps({module: imported(module, path, files) for module, path in files.items()}))


def module_of(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(module: str, path: Path, files: dict[str, Path]) -> list[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, module, path)
            for alias in node.names:
                full = f"{source}.{alias.name}"
                found.add(full if full in files else source)
    return sorted(found - {module})


def absolute(node: ast.ImportFrom, module: str, path: Path) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    up = node.level - 1 if path.name == "__init__.py" else node.level
    return ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])


main(Path(sys.argv[1]).resolve())
