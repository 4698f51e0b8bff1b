"""The sub-commands of a script, read from its source without running its imports.

They serve to check a command line before JAX is imported, which takes a second. Only the parts of the script that the
signatures need are executed: imports of light modules, assignments to names, and the functions with their names,
signatures and docstrings, but without their bodies.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LIGHT = {"__future__", "collections.abc", "dataclasses", "enum", "math", "pathlib", "typing"}


def stubs(path: Path) -> list[Callable]:
    """Returns the functions that a script passes to `cli.main`, without bodies.

    Args:
        path: The script.

    Returns:
        The functions; none if their signatures need more than light modules, such as a computed default.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = _named(tree)
    functions = {node.name: _empty(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    if not names or not set(names) <= functions.keys() or any(functions[name].decorator_list for name in names):
        return []
    jobs = [functions[name] for name in names]
    body = [*_needed(tree, jobs), *jobs, *(node for node in tree.body if _renames(node, names))]
    module = ast.fix_missing_locations(ast.Module(sorted(body, key=lambda node: node.lineno), []))
    space: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(module, str(path), "exec"), space)
    except Exception:  # of any type, as a script may do anything there: `main` checks it later
        return []
    return [space[name] for name in names]


def job_names(path: Path) -> list[str]:
    """Returns the names of the functions that a script passes to `cli.main`."""
    return _named(ast.parse(path.read_text(encoding="utf-8")))


def _named(tree: ast.Module) -> list[str]:
    """The names in the script's call of `cli.main`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "cli.main":
            return [argument.id for argument in node.args if isinstance(argument, ast.Name)]
    return []


def _empty(node: ast.FunctionDef) -> ast.FunctionDef:
    """The function without a body but for its docstring."""
    text = ast.get_docstring(node, clean=False)
    stub = copy.copy(node)
    stub.body = [ast.copy_location(ast.Expr(ast.Constant(text)), node.body[0])]
    return stub


def _needed(tree: ast.Module, jobs: list[ast.FunctionDef]) -> Iterator[ast.stmt]:
    """The imports of light modules, and the assignments on which the signatures depend."""
    assigned = {name: node for node in tree.body for name in _targets(node)}
    used: set[int] = set()
    waiting: list[ast.AST] = [node for job in jobs for node in (job.args, job.returns) if node is not None]
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name) and node.id in assigned and id(assigned[node.id]) not in used:
                used.add(id(assigned[node.id]))
                waiting.append(assigned[node.id])
    for node in tree.body:
        if id(node) in used or (isinstance(node, ast.Import) and all(alias.name in LIGHT for alias in node.names)):
            yield node
        elif isinstance(node, ast.ImportFrom):
            light = [alias for alias in node.names if node.module in LIGHT or f"{node.module}.{alias.name}" == _CLI]
            if light:
                yield ast.copy_location(ast.ImportFrom(node.module, light, node.level), node)


_CLI = "diffsim.app.cli"


def _targets(node: ast.stmt) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name) and _stores(part))


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _renames(node: ast.stmt, names: list[str]) -> bool:
    """Whether a statement renames one of the functions, by setting its `__name__`."""
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    named = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in names
    return named and isinstance(target, ast.Attribute) and target.attr == "__name__"
