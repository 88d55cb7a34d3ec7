"""List, fetch, check and remove the models that the stages run.

`pull` without a name fetches the default bundle. Only `pull` uses the network.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgevoice import catalogue
from edgevoice.catalogue import Catalogue
from edgevoice.commands.printing import print_json, print_table
from edgevoice.errors import (
    EXIT_FAILURE,
    EXIT_OK,
    ArtifactError,
    ConfigError,
    MissingDependencyError,
    unknown,
)
from edgevoice.progress import meter_for_stderr, say
from edgevoice.pull import Prepare, Puller
from edgevoice.store import Store

HELP = "list, pull, verify, locate and remove models"

_MB = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON instead of text")
    shared.add_argument(
        "--catalogue", type=Path, metavar="FILE", help="read this catalogue instead of edgevoice's"
    )
    actions.add_parser(
        "list", parents=[shared], help="every model and bundle that is known or installed"
    ).set_defaults(act=_list)
    pull = actions.add_parser("pull", parents=[shared], help="fetch models, or a bundle of them")
    pull.add_argument(
        "names", nargs="*", metavar="NAME", help="model or bundle (default: the default bundle)"
    )
    pull.add_argument(
        "--force", action="store_true", help="fetch and convert again what is installed and whole"
    )
    pull.set_defaults(act=_pull)
    verify = actions.add_parser("verify", parents=[shared], help="hash installed models again")
    verify.add_argument("names", nargs="*", metavar="NAME", help="model or bundle (default: all)")
    verify.set_defaults(act=_verify)
    path = actions.add_parser("path", parents=[shared], help="print a model's folder")
    path.add_argument("name", metavar="NAME")
    path.set_defaults(act=_path)
    remove = actions.add_parser("remove", parents=[shared], help="delete installed models")
    remove.add_argument("names", nargs="+", metavar="NAME")
    remove.set_defaults(act=_remove)


def run(parsed: argparse.Namespace) -> int:
    """Run the action that was asked for and return the exit code."""
    try:
        return int(parsed.act(parsed, catalogue.load(parsed.catalogue), Store.default()))
    except BrokenPipeError:
        raise
    except OSError as error:
        where = error.filename or Store.default().root
        raise ArtifactError(f"{where}: {error.strerror}; EDGEVOICE_HOME moves the store") from error


def _list(parsed: argparse.Namespace, known: Catalogue, store: Store) -> int:
    installed = store.names()
    rows = [_row(name, known, store, installed) for name in sorted({*known.entries, *installed})]
    if parsed.json:
        bundles = {name: list(members) for name, members in known.bundles.items()}
        print_json({"store": str(store.root), "artifacts": rows, "bundles": bundles})
        return EXIT_OK
    table = [["NAME", "STAGE", "SCHEME", "SIZE", "LICENCE", "INSTALLED", "VERIFIED"]]
    for row in rows:
        about = "" if row["installed"] or row["verified"] else "~"
        table.append(
            [
                row["name"],
                row["stage"],
                row["scheme"],
                f"{about}{row['size_bytes'] / _MB:.0f} MB",
                row["licence"],
                "yes" if row["installed"] else "-",
                "yes" if row["verified"] else "unverified",
            ]
        )
    print_table(table)
    print()
    for name, members in known.bundles.items():
        print(f"bundle {name}: {', '.join(members)}")
    return EXIT_OK


def _row(name: str, known: Catalogue, store: Store, installed: Sequence[str]) -> dict[str, Any]:
    entry = known.entries.get(name)
    row: dict[str, Any] = {"name": name, "installed": name in installed}
    if name in installed:
        artifact = store.manifest(name)
        # What an exporter of this machine made was checked here; the catalogue never saw it.
        row["verified"] = bool(artifact.checks.get("verified", entry is None or entry.verified))
        row["size_bytes"] = sum(f.size for f in artifact.files)
        row["path"] = str(store.path(name))
        row |= {k: getattr(artifact, k) for k in ("stage", "family", "scheme", "licence")}
    elif entry is not None:
        row |= {"verified": entry.verified, "size_bytes": entry.size_bytes, "path": None}
        row |= {k: getattr(entry, k) for k in ("stage", "family", "scheme", "licence")}
    row["description"] = entry.description if entry else "not in the catalogue"
    row["sources"] = [str(s) for f in entry.files for s in f.sources] if entry else []
    return row


def _pull(parsed: argparse.Namespace, known: Catalogue, store: Store) -> int:
    entries = known.expand(parsed.names or [catalogue.DEFAULT_BUNDLE])
    puller = Puller(store, _preparer, meter_for_stderr(), say)
    done = []
    for pulled in puller.pull(entries, parsed.force):
        size = f"{pulled.size_bytes / _MB:.0f} MB"
        state = f"installed in {pulled.seconds:.0f} s" if pulled.fetched else "already installed"
        say(f"{pulled.name}: {state}, {size}")
        done.append(
            {
                "name": pulled.name,
                "path": str(pulled.path),
                "fetched": pulled.fetched,
                "size_bytes": pulled.size_bytes,
                "seconds": round(pulled.seconds, 3),
            }
        )
    if parsed.json:
        print_json(done)
    return EXIT_OK


def _verify(parsed: argparse.Namespace, known: Catalogue, store: Store) -> int:
    names: list[str] = []
    for name in parsed.names or store.names():
        names += known.bundles.get(name, (name,))
    if not names:
        raise ArtifactError(f"nothing is installed in {store.root}; run edgevoice models pull")
    for name in names:
        _check_known(name, known, store)
    meter = meter_for_stderr()
    results = {}
    for name in names:
        total = sum(f.size for f in store.manifest(name).files)
        with meter(f"check {name}", total) as advance:
            results[name] = list(store.verify(name, advance))
        if not parsed.json:
            for problem in results[name]:
                print(f"{name}: {problem}")
            if not results[name]:
                print(f"{name}: whole")
    if parsed.json:
        print_json(results)
    damaged = [name for name, problems in results.items() if problems]
    if damaged:
        say(f"edgevoice: damaged: {', '.join(damaged)}; edgevoice models pull NAME mends it")
    return EXIT_FAILURE if damaged else EXIT_OK


def _path(parsed: argparse.Namespace, known: Catalogue, store: Store) -> int:
    _check_known(parsed.name, known, store)
    folder = str(store.path(parsed.name))
    if parsed.json:
        print_json({"name": parsed.name, "path": folder})
    else:
        print(folder)
    return EXIT_OK


def _remove(parsed: argparse.Namespace, known: Catalogue, store: Store) -> int:
    for name in parsed.names:
        _check_known(name, known, store)
        store.path(name)
    for name in dict.fromkeys(parsed.names):
        store.remove(name)
        say(f"{name}: removed")
    if parsed.json:
        print_json({"removed": list(dict.fromkeys(parsed.names))})
    return EXIT_OK


def _check_known(name: str, known: Catalogue, store: Store) -> None:
    names = {*known.entries, *store.names()}
    if name not in names:
        raise ConfigError(unknown("artifact", name, names))


def _preparer() -> Prepare:
    if importlib.util.find_spec("onnx") is None:
        raise MissingDependencyError(
            "converting models needs onnx, once; run pip install 'edgevoice[convert]'"
        )
    from edgevoice.export.prepare import prepare

    return prepare
