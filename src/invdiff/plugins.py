"""Tasks, solvers, operators and noise of others: known by name once they are registered.

Nothing need be registered to be used from Python. To be known by name, on the command line, in
tables and in run.json, a module calls `invdiff.register(Half, MyTask, MySolver)` when it is
imported. It is found by `--plugin FILE.py` or `--plugin MODULE`, or as an entry point of the group
"invdiff" of a package that is installed. A file never makes a module be imported.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from invdiff.core import InvdiffError
from invdiff.core.encode import REGISTERED
from invdiff.sampling.solver import Solver
from invdiff.sampling.solver import register as register_solver
from invdiff.solvers import registry
from invdiff.tasks import TASKS
from invdiff.tasks.base import Task

GROUP = "invdiff"
LOADED: dict[str, str] = {}
"""Name to version of every plugin that is loaded; run.json tells of them."""
ASKED: list[str] = []
"""What --plugin named, in order: a command that is told to users names it again."""
FAILED: dict[str, str] = {}
"""Name to reason of every one that could not be imported: a line in tables, and no more."""
_loading: list[str] = []


def register(*classes: type) -> None:
    """Make tasks, solvers, operators, noise, views or other frozen dataclasses known by name.

    Tasks and solvers appear in the tables and on the command line under their `name`; all may be
    written to run.json. Raises InvdiffError for what is no frozen dataclass, and for a name that is
    taken.
    """
    for cls in classes:
        params = getattr(cls, "__dataclass_params__", None)
        if not isinstance(cls, type) or params is None or not params.frozen:
            raise InvdiffError(f"{cls!r} is no frozen dataclass; write @dataclass(frozen=True).")
        _check_free(REGISTERED, cls.__qualname__, cls, "class")
        if issubclass(cls, Task):
            _check_free(TASKS, cls.name, cls, "task")
        if issubclass(cls, Solver):
            _check_free(registry(), cls.name, cls, "solver")
    for cls in classes:  # all of them, or none
        REGISTERED[cls.__qualname__] = cls
        if issubclass(cls, Task):
            TASKS[cls.name] = cls
        if issubclass(cls, Solver):
            register_solver(cls)


def _check_free(table: Mapping[str, type], name: str, cls: type, what: str) -> None:
    """Raise InvdiffError where another class has the name."""
    known = table.get(name, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise InvdiffError(
            f"There is a {what} called {name} already ({known.__module__}); give it another name."
        )


def load(spec: str) -> None:
    """Import a plugin, a .py file or a module. Raises InvdiffError when that fails."""
    path = Path(spec)
    if path.suffix == ".py" and not path.is_file():
        raise InvdiffError(f"There is no file {spec}; --plugin takes FILE.py or a MODULE.")
    try:
        if path.suffix == ".py":
            name = f"invdiff_plugin_{path.stem}"
            found = importlib.util.spec_from_file_location(name, path)
            assert found is not None and found.loader is not None
            module = importlib.util.module_from_spec(found)
            sys.modules[name] = module
            found.loader.exec_module(module)
            LOADED[str(path.resolve())] = _hash(path)
        else:
            module = importlib.import_module(spec)
            LOADED[spec] = str(getattr(module, "__version__", ""))
        ASKED.append(spec)
    except InvdiffError:
        raise
    except Exception as error:  # whatever the code of others raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvdiffError(
            f"The plugin {spec} cannot be imported: {type(error).__name__}: {reason}."
        ) from error


def flags() -> list[str]:
    """The --plugin options that this command was given, for one that is to be typed."""
    return [part for spec in dict.fromkeys(ASKED) for part in ("--plugin", spec)]


def load_installed() -> None:
    """Import the plugins of installed packages, once; those that fail are kept in FAILED."""
    if _loading:
        return
    _loading.append(GROUP)
    for point in entry_points(group=GROUP):
        try:
            point.load()
            LOADED[point.name] = point.dist.version if point.dist else ""
        except Exception as error:  # one must not stop the others
            reason = " ".join(str(error).split()) or type(error).__name__
            FAILED[point.name] = f"{type(error).__name__}: {reason}"


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
