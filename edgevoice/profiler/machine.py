"""What a reader needs to know of the machine and the bundle to judge a profile's figures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgevoice import host, manifest
from edgevoice.devices.detect import detect
from edgevoice.settings import Settings
from edgevoice.store import Store


def facts() -> dict[str, str]:
    """Return the machine: processor and its features, cores, memory, kernel, Python, governor."""
    found = detect()
    return {
        **host.facts(),
        "processor": found.processor or host.cpu_name(),
        "features": " ".join(found.cpu_features),
        "governor": found.governor or "not told by the kernel",
    }


def models(settings: Settings, store: Store) -> dict[str, Any]:
    """Return, by stage, the artifact that runs and the hashes that its manifest states.

    Raises:
        ArtifactError: One is not in the store; the message says how to fetch it.
    """
    found = {}
    for stage, name in settings.artifacts().items():
        folder = store.path(name)
        artifact = manifest.read(folder)
        found[stage] = {
            "name": artifact.name,
            "family": artifact.family,
            "scheme": artifact.scheme,
            "manifest_sha256": hashlib.sha256(
                (folder / manifest.FILE_NAME).read_bytes()
            ).hexdigest(),
            "files": {file.path: file.sha256 for file in artifact.files},
        }
    return found


def chosen(settings: Settings) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings that the figures depend on, as JSON; without addresses of servers."""
    sections = json.loads(json.dumps(asdict(settings)))  # whose lists are no tuples
    kept = ("vad", "recogniser", "end_of_turn", "language_model", "speech", "turns", "audio")
    private = ("endpoint", "api_key_env", "input_device", "output_device")
    return {
        name: {key: value for key, value in sections[name].items() if key not in private}
        for name in kept
    }


def load_average() -> list[float] | None:
    """Return the machine's load average, None where it has none."""
    try:
        return list(os.getloadavg())
    except OSError:
        return None
