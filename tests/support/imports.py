"""What a Python file imports, read without running it."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, inside functions too; a relative import fails the test."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; give the module's full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
