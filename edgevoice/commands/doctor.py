"""Say what is installed, which engines and ports work, and the command that mends what does not.

Exit code 0 means that a conversation by microphone works, 1 that it does not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from edgevoice.commands import settings_options
from edgevoice.errors import EXIT_FAILURE, EXIT_OK

HELP = "check what a conversation needs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--quick", action="store_true", help="do not load the engines")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    settings_options.add_config(parser, "configuration to check with")
    settings_options.add_set(parser)


def run(options: argparse.Namespace) -> int:
    """Run every check; 1 when talking does not work."""
    from edgevoice import doctor
    from edgevoice.store import Store

    settings = settings_options.read(options)
    checks = []
    for check in doctor.examine(settings, Store.default(), quick=options.quick):
        checks.append(check)
        if not options.json:
            print(f"{check.status:8}{check.area:9}{check.name:17}{check.detail}", flush=True)
            if check.mend and check.status != "ok":
                print(f"{'':34}mend: {check.mend}", flush=True)
    works = doctor.talking_works(checks)
    if options.json:
        print(json.dumps({"works": works, "checks": [asdict(c) for c in checks]}, indent=2))
    else:
        print("talking works" if works else "talking does not work yet: see what is missing above")
    return EXIT_OK if works else EXIT_FAILURE
