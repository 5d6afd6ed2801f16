"""A chat server on this machine that answers as a test wants, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, int], str | tuple[int, str]]
"""From the prompt and the number of the call (from 0): the reply, or a status and a body."""


@dataclass
class JudgeServer:
    """What a running server knows."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


def texts_in(prompt: str) -> dict[str, str]:
    """Question and answers of a prompt of the judge."""
    return json.loads(prompt[prompt.index("{") : prompt.rindex("}") + 1])


@contextmanager
def judge_server(answer: Answer) -> Iterator[JudgeServer]:
    """Serve chat completions on a free port of this machine."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server_state.requests)
                server_state.requests.append(request)
                server_state.headers.append(dict(self.headers))
            reply = answer(request["messages"][0]["content"], number)
            message = {"choices": [{"message": {"role": "assistant", "content": reply}}]}
            status, body = reply if isinstance(reply, tuple) else (200, json.dumps(message))
            data = body.encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server_state = JudgeServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server_state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
