"""Device profiles: which there are, which one this machine matches, and which models fit one.

A profile says what a kind of device has (processor features, cores, memory) and what edgevoice
chooses for it (schemes, threads, audio port, budgets). `talk --device NAME`, `daemon run --device
NAME` and `export --device NAME` use one. Your own profiles are TOML files in the folder `devices`
beside the configuration file (`edgevoice config path`), and may inherit from any other:
`edgevoice devices show NAME` prints one to start from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgevoice import catalogue
from edgevoice.commands import devices_bundle
from edgevoice.commands.printing import print_json, print_table
from edgevoice.devices import profile as profiles
from edgevoice.devices.detect import Machine, Suggestion, detect, suggest
from edgevoice.devices.fit import Fit, Need, fit_artifact, fit_bundle, needs, of_machine
from edgevoice.devices.profile import DeviceProfile, load_profile, load_profiles
from edgevoice.devices.profile_text import to_toml
from edgevoice.errors import EXIT_FAILURE, EXIT_OK, ConfigError, unknown
from edgevoice.progress import say
from edgevoice.store import Store

HELP = "list, show and detect device profiles; say which models fit; make a bundle for one"

_NOT_KNOWN = "not known"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON instead of text")
    actions.add_parser("list", parents=[shared], help="every profile, one a line").set_defaults(
        act=_list
    )
    show = actions.add_parser(
        "show", parents=[shared], help="print a profile, with all that it inherits, as TOML"
    )
    show.add_argument("name", metavar="NAME", help="profile, or path of a profile's file")
    show.set_defaults(act=_show)
    found = actions.add_parser(
        "detect",
        parents=[shared],
        help="what this machine is, and the profile that suits it (exit code 1: none does)",
    )
    found.set_defaults(act=_detect)
    fit = actions.add_parser(
        "fit",
        parents=[shared],
        help="which models and bundles fit a device, and why others do not",
        description="Judges memory, processor features, providers and recognition before anything "
        "is loaded. Sizes of memory are estimates where the exporter has not measured them.",
    )
    fit.add_argument(
        "profile",
        nargs="?",
        metavar="PROFILE",
        help="profile, or path of a profile's file (default: this machine, as it is)",
    )
    fit.add_argument(
        "--memory-mb", type=int, metavar="MIB", help="memory of the device (default: PROFILE's)"
    )
    fit.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="NAME",
        help="judge these models or bundles alone; exit code 1: one does not fit",
    )
    fit.add_argument(
        "--catalogue", type=Path, metavar="FILE", help="read this catalogue instead of edgevoice's"
    )
    fit.set_defaults(act=_fit)
    bundle = actions.add_parser(
        "bundle", help=devices_bundle.HELP, description=devices_bundle.__doc__
    )
    devices_bundle.add_arguments(bundle)
    bundle.set_defaults(act=devices_bundle.run)


def run(parsed: argparse.Namespace) -> int:
    """Run the action that was asked for and return the exit code."""
    return int(parsed.act(parsed))


def _list(parsed: argparse.Namespace) -> int:
    known, failures = load_profiles()
    known = tuple(sorted(known, key=lambda p: p.name))
    if parsed.json:
        rows = [{**asdict(p), "built_in": profiles.is_built_in(p.name)} for p in known]
        folder = str(profiles.user_folder())
        print_json({"folder": folder, "profiles": rows, "unusable": [str(f) for f in failures]})
        return EXIT_OK
    table = [["NAME", "DEVICE", "ARCHITECTURE", "CORES", "MEMORY", "FROM"]]
    for one in known:
        table.append(
            [
                one.name,
                one.title,
                one.architecture,
                str(one.cores or "any"),
                f"{one.memory_mb} MiB" if one.memory_mb else "any",
                "edgevoice" if profiles.is_built_in(one.name) else "you",
            ]
        )
    print_table(table)
    for failure in failures:
        say(f"edgevoice: {failure}")
    return EXIT_OK


def _show(parsed: argparse.Namespace) -> int:
    profile = load_profile(parsed.name)
    if parsed.json:
        print_json(asdict(profile))
    else:
        print(to_toml(profile), end="")
    return EXIT_OK


def _detect(parsed: argparse.Namespace) -> int:
    machine, suggestion = _this_machine()
    ports = _audio_ports()
    if parsed.json:
        profile = suggestion.profile
        print_json(
            {
                "machine": {
                    **asdict(machine),
                    "cores": machine.cores,
                    "fast_cores": machine.fast_cores,
                },
                "audio_ports": ports,
                "suggestion": profile.name if profile is not None else None,
                "reasons": suggestion.reasons,
            }
        )
    else:
        print_table(_machine_rows(machine, ports))
        print()
        for line in _suggestion_lines(suggestion):
            print(line)
    return EXIT_OK if suggestion.profile is not None else EXIT_FAILURE


def _fit(parsed: argparse.Namespace) -> int:
    known = catalogue.load(parsed.catalogue)
    asked = needs(known, Store.default())
    if strange := [n for n in parsed.models if n not in asked and n not in known.bundles]:
        raise ConfigError(unknown("model or bundle", strange[0], (*asked, *known.bundles)))
    profile = _fit_profile(parsed)
    members = {name: [asked[m] for m in names] for name, names in known.bundles.items()}
    bundles = {name: fit_bundle(name, found, profile) for name, found in members.items()}
    singles = {name: fit_artifact(need, profile) for name, need in asked.items()}
    if parsed.models:
        bundles = {name: fit for name, fit in bundles.items() if name in parsed.models}
        singles = {name: fit for name, fit in singles.items() if name in parsed.models}
    if parsed.json:
        print_json(
            {
                "profile": profile.name,
                "memory_mb": profile.memory_mb,
                "memory_budget_mb": profile.memory_budget_mb,
                "bundles": [_fit_json(fit) for fit in bundles.values()],
                "models": [
                    {**_fit_json(fit), "stage": asked[name].stage, "scheme": asked[name].scheme}
                    for name, fit in singles.items()
                ],
            }
        )
    else:
        print(f"for {profile.name} ({profile.title}):")
        print_table(_fit_rows(bundles, singles, asked))
        for line in _note_lines([*bundles.values(), *singles.values()]):
            print(line)
    every = [*bundles.values(), *singles.values()]
    failed = parsed.models and not all(fit.fits for fit in every)
    return EXIT_FAILURE if failed else EXIT_OK


def _fit_profile(parsed: argparse.Namespace) -> DeviceProfile:
    if parsed.profile is not None:
        profile = load_profile(parsed.profile)
    else:
        machine, suggestion = _this_machine()
        if suggestion.profile is None:
            raise ConfigError(f"{'; '.join(suggestion.reasons)}; name a profile")
        profile = of_machine(suggestion.profile, machine)
    if parsed.memory_mb is None:
        return profile
    if parsed.memory_mb < 1:
        raise ConfigError(f"--memory-mb {parsed.memory_mb}: at least 1 is needed")
    return replace(profile, memory_mb=parsed.memory_mb, memory_budget_mb=0)


def _this_machine() -> tuple[Machine, Suggestion]:
    machine = detect()
    return machine, suggest(machine, load_profiles()[0])


def _audio_ports() -> dict[str, str]:
    """Return what each audio port has: its devices, or why it does not work."""
    from edgevoice.audio.ports import list_devices

    devices, failures = list_devices()
    ports = dict.fromkeys(("pyaudio", "pulse"), "no devices")
    ports |= {port: str(failure) for port, failure in failures.items()}
    for port in dict.fromkeys(device.port for device in devices):
        counts = [
            f"{sum(d.port == port and d.direction == direction for d in devices)} {direction}"
            for direction in ("input", "output")
        ]
        ports[port] = ", ".join(counts)
    return ports


def _machine_rows(machine: Machine, ports: dict[str, str]) -> list[list[str]]:
    rows = [
        ["model", machine.model or machine.soc or _NOT_KNOWN],
        ["system", machine.system],
        ["architecture", machine.architecture],
        ["processor", machine.processor or _NOT_KNOWN],
        ["cpu features", ", ".join(machine.cpu_features) or "none that edgevoice looks for"],
    ]
    for group in machine.groups:
        clock = f"{group.max_mhz} MHz" if group.max_mhz else f"clock {_NOT_KNOWN}"
        kind = "fast" if group.fast else "slow"
        numbers = ",".join(map(str, group.numbers))
        what = f"{len(group.numbers)} x {group.name or 'core'}, {clock}, {kind} (cpu {numbers})"
        rows.append(["cores", what])
    battery, held = machine.battery, machine.throttling
    warm = machine.temperature_c
    rows += [
        ["memory", f"{machine.memory_mb} MiB" if machine.memory_mb else _NOT_KNOWN],
        ["governor", machine.governor or _NOT_KNOWN],
        ["temperature", _NOT_KNOWN if warm is None else f"{warm:.0f} °C"],
        ["throttling", _NOT_KNOWN],
        ["battery", "none" if battery is None else f"{battery.percent}%, {battery.status}"],
    ]
    if held is not None:
        since = f"; since the start: {', '.join(held.before)}" if held.before else ""
        rows[-2][1] = f"{', '.join(held.now) or 'none'}{since} ({held.source})"
    cards = [
        f"{card.name}{' plays' if card.plays else ''}{' records' if card.records else ''}"
        for card in machine.sound_cards
    ]
    rows.append(["sound cards", "; ".join(cards) or "no audio hardware in sight"])
    rows += [[f"audio {port}", what] for port, what in ports.items()]
    return rows


def _suggestion_lines(suggestion: Suggestion) -> list[str]:
    name = suggestion.profile.name if suggestion.profile is not None else "none"
    lines = [f"profile: {name}", *(f"  {reason}" for reason in suggestion.reasons)]
    if suggestion.profile is not None:
        lines.append(f"  use it: edgevoice talk --device {name}")
    return lines


def _fit_rows(
    bundles: dict[str, Fit], singles: dict[str, Fit], asked: dict[str, Need]
) -> Sequence[Sequence[str]]:
    table = [["NAME", "KIND", "NEEDS", "FITS", "WHY"]]
    kinds = [(fit, "bundle") for fit in bundles.values()]
    kinds += [(fit, asked[name].stage) for name, fit in singles.items()]
    for fit, kind in kinds:
        about = "" if fit.measured else "~"
        why = "; ".join(map(str, fit.problems))
        table.append([fit.name, kind, f"{about}{fit.memory_mb} MiB", _word(fit), why])
    return table


def _note_lines(fits: Sequence[Fit]) -> list[str]:
    """Return each note once, with the names of what it is about."""
    about: dict[str, list[str]] = {}
    for fit in fits:
        for note in fit.notes:
            about.setdefault(note, []).append(fit.name)
    return [f"note: {note} ({', '.join(names)})" for note, names in about.items()]


def _word(fit: Fit) -> str:
    return "yes" if fit.fits else "no"


def _fit_json(fit: Fit) -> dict[str, Any]:
    return {**asdict(fit), "fits": fit.fits}
