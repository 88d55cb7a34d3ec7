"""`edgevoice devices bundle`: its options, and what a bundle takes from a device profile.

Putting it together is :mod:`edgevoice.devices.bundle`'s business.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from edgevoice import config
from edgevoice.commands import settings_options
from edgevoice.commands.printing import print_json
from edgevoice.devices import bundle, defaults
from edgevoice.devices.bundle import BundlePlan
from edgevoice.devices.bundle_wheels import Target
from edgevoice.devices.fit import fit_bundle, need_of_manifest
from edgevoice.devices.profile import DeviceProfile, is_built_in, load_profile
from edgevoice.devices.profile_text import to_toml
from edgevoice.errors import EXIT_OK
from edgevoice.progress import meter_for_stderr, say
from edgevoice.settings import DeviceSettings
from edgevoice.store import Store

HELP = "everything for a device in one archive, to install there without a network"

_MB = 1_000_000
_DEFAULT_PYTHON = "3.11"
_WHEELS = Path("wheels")
"""Where `tools/cross-llama` and `make wheels` leave what they compiled."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgevoice devices bundle`."""
    parser.add_argument("profile", metavar="PROFILE", help="of `edgevoice devices list`, or a file")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends in .tar.zst or .tar.gz"
    )
    parser.add_argument(
        "--python",
        default=_DEFAULT_PYTHON,
        metavar="3.N",
        help=f"the device's Python (default: {_DEFAULT_PYTHON}, Debian 12's; Debian 13 has 3.13)",
    )
    parser.add_argument(
        "--find-links",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="where wheels lie that no index has (default: wheels, where there is one)",
    )
    parser.add_argument(
        "--without-espeak",
        action="store_true",
        help="leave out espeak-ng (GPL-3.0); the device then needs libespeak-ng1",
    )
    settings_options.add_config(
        parser,
        "the configuration that goes along, and so the models "
        "(default: edgevoice's defaults; the profile fills what it leaves open)",
    )
    settings_options.add_set(parser, "change one setting of it; may be repeated")
    parser.add_argument("--json", action="store_true", help="print what is in the bundle as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Make the bundle and say what is in it."""
    plan = plan_of(parsed)
    for problem in misfits(plan, load_profile(parsed.profile), Store.default()):
        say(f"edgevoice: warning: {problem}")
    made = bundle.make(plan, Store.default(), parsed.out, meter_for_stderr())
    if parsed.json:
        print_json(made.contents)
    else:
        print(
            f"wrote {made.path}: {made.size_bytes / _MB:.0f} MB, {made.installed_mb} MiB installed"
        )
        print(f"for {plan.target.architecture} with Python {plan.target.python}")
        print(f"models: {', '.join(made.models)}")
        print(f"wheels: {len(made.wheels)}")
    say(f"on the device: tar xf {made.path.name} && cd {made.folder} && ./install.sh")
    return EXIT_OK


def misfits(plan: BundlePlan, profile: DeviceProfile, store: Store) -> tuple[str, ...]:
    """Return why the plan's models may not run on the device; memory is an estimate."""
    settings = plan.settings
    # The cheaper models come beside the ordinary ones: these stay, to step up again.
    names = (*settings.artifacts().values(), *settings.cheaper().values())
    needs = [need_of_manifest(store.manifest(name)) for name in names]
    return tuple(map(str, fit_bundle(plan.profile, needs, profile).problems))


def plan_of(parsed: argparse.Namespace) -> BundlePlan:
    """Return what the options ask for.

    Raises:
        ConfigError: The profile or the configuration cannot be used as written.
    """
    profile = load_profile(parsed.profile)
    written = config.read(parsed.config) if parsed.config else {}
    settings = config.override(config.parse(written, str(parsed.config)), parsed.set)
    chosen = {(section, key) for section, keys in written.items() for key in keys}
    chosen |= {config.split(assignment)[:2] for assignment in parsed.set}
    # What the profile fills in on the device, it fills in here: its models have to come along.
    models = {at: name for at, name in defaults.of_profile(profile).items() if at[1] == "model"}
    settings = defaults.fill(settings, models, chosen)
    folders = parsed.find_links or ([_WHEELS] if _WHEELS.is_dir() else [])
    return BundlePlan(
        profile=profile.name,
        # The device's edgevoice knows the built-in ones.
        own_profile="" if is_built_in(profile.name) else to_toml(profile),
        target=Target(profile.architecture, parsed.python),
        settings=dataclasses.replace(settings, device=DeviceSettings(profile.name)),
        chosen=frozenset(chosen | {("device", "profile")}),
        wheel_folders=tuple(folder.absolute() for folder in folders),
        memory_mb=profile.memory_budget_mb or bundle.MEMORY_MB,
        espeak=not parsed.without_espeak,
    )
