"""A model hub on loopback that holds the repository `org/tiny`, as huggingface_hub asks for it."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import loopback_http

COMMIT = "a" * 40


@dataclass
class HubServer:
    """A running server.

    Attributes:
        files: What the repository holds.
        asked: Every path that was asked for.
        endpoint: Its address.
    """

    files: Mapping[str, bytes]
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""

    def environment(self, home: Path) -> dict[str, str]:
        """Variables of a process that asks this hub.

        The endpoint is read when huggingface_hub is imported: a process of its own.
        """
        return os.environ | {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home)}

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path
        self.asked.append(path)
        name = path.partition("?")[0].partition("/resolve/")[2].partition("/")[2]
        if "/tree/" in path:
            listed = [
                {"type": "file", "path": n, "size": len(c), "oid": "b" * 40}
                for n, c in self.files.items()
            ]
            content = json.dumps(listed).encode()
        elif path.startswith("/api/models/org/tiny"):
            content = json.dumps({"id": "org/tiny", "sha": COMMIT}).encode()
        elif name in self.files:
            content = self.files[name]
        else:
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[HubServer]:
    """Serve ``files`` while the block runs."""
    hub = HubServer(files)
    with loopback_http.serving(hub.answer) as hub.endpoint:
        yield hub
