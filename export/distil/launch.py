"""Runs a module of edgevoice in an interpreter that has torch and nothing of edgevoice installed.

    python launch.py EDGEVOICE_FOLDER MODULE [ARGUMENT ...]

Makes the packages `edgevoice` and `edgevoice.export` of their folders, which need not lie in one
another (an editable install's do not), without putting the rest of an environment on the path.
Imports nothing of edgevoice itself.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path


def package(name: str, folder: Path) -> None:
    """Make ``folder`` the package ``name``."""
    init = folder / "__init__.py"
    found = importlib.util.spec_from_file_location(
        name, init, submodule_search_locations=[str(folder)]
    )
    assert found and found.loader, f"{init} is no Python file"
    made = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)


def main() -> None:
    """Run the module."""
    edgevoice, module = sys.argv[1:3]
    package("edgevoice", Path(edgevoice))
    package("edgevoice.export", Path(__file__).resolve().parents[1])
    sys.argv[:3] = [module]
    # Without -P the folder of this file is on the path; its modules are edgevoice's, not anyone's.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [path for path in sys.path if path != here]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
