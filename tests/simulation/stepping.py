"""Places to switch between the statements of a function.

Python may switch threads between any two instructions. Injected calls alone would hide that, so the functions on which
the proof rests are compiled again with a step before each statement. A trace function would do the same, but there is
one for each thread only, and it belongs to whoever measures coverage.
"""

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from tests.simulation.world import World


def step() -> None:
    if World.current is not None:
        World.current.step()


class _Stepping(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list) and statements and isinstance(statements[0], ast.stmt):
                setattr(node, name, [one for statement in statements for one in (_call(statement), statement)])
        return node


def _call(before: ast.stmt) -> ast.stmt:
    name = ast.Name("__step", ast.Load())
    return ast.copy_location(ast.Expr(ast.Call(name, [], [])), before)


@functools.cache
def stepped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with a step before each statement."""
    lines, first = inspect.getsourcelines(function)
    [definition] = ast.parse(textwrap.dedent("".join(lines))).body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list, definition.returns = [], None
    _Stepping().visit(definition)
    template = "def factory(__step):\n    pass"
    module = ast.parse(template)
    module.body[0].body = [definition, ast.Return(ast.Name(definition.name, ast.Load()))]  # type: ignore[attr-defined]
    ast.increment_lineno(module, first - 1)
    scope: dict[str, Any] = {}
    code = compile(ast.fix_missing_locations(module), inspect.getsourcefile(function) or "", "exec")
    exec(code, vars(sys.modules[function.__module__]), scope)
    made: Callable[..., Any] = scope["factory"](step)
    return made
