"""Users' questions as sound, from a voice that is not the agent's."""

import subprocess
from pathlib import Path


def speak(text: str, path: Path, voice: str = "slt") -> Path:
    """Write ``text`` as a WAV file with Debian's flite; `make test` has installed it."""
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
    return path
