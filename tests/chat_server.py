"""A small OpenAI-compatible server on loopback, well-behaved or broken in a chosen way."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """Streams scripted answers word by word; ``raw`` replaces the stream's lines.

    After the lines of ``raw`` the server stays silent if ``stalls``, else it hangs up.
    """

    def __init__(
        self,
        script: Mapping[str, str],
        *,
        status: int = 200,
        body: bytes = b"",
        content_type: str = "text/event-stream",
        raw: list[bytes] | None = None,
        stalls: bool = False,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hung_up = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.requests.append({"path": self.path, **asked})
                owner.headers.append(dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.end_headers()
                if body:
                    self.wfile.write(body)
                    return
                question = asked["messages"][-1]["content"]
                for line in raw if raw is not None else chunks(script[question]):
                    try:
                        self.wfile.write(line + b"\n\n")
                    except OSError:
                        return
                if stalls:
                    self._wait_for_the_caller_to_leave()

            def _wait_for_the_caller_to_leave(self) -> None:
                self.connection.settimeout(10)
                if self.connection.recv(1) == b"":
                    owner.hung_up.set()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def chunks(answer: str) -> list[bytes]:
    """The lines of a whole stream, as llama-server sends them."""
    deltas: list[dict[str, str]] = [{"role": "assistant"}]
    words = answer.split(" ")
    deltas += [{"content": w if i == 0 else f" {w}"} for i, w in enumerate(words)]
    lines = [b": a comment keeps the connection alive"]
    lines += [b"data: " + json.dumps({"choices": [{"delta": d}]}).encode() for d in deltas]
    lines.append(b'data: {"choices": [], "usage": {"completion_tokens": 7}}')
    return [*lines, b"data: [DONE]"]
