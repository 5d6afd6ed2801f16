"""A chat model behind an OpenAI-compatible address, such as a vLLM server next door: greedy, retried, in parallel."""

import http.client
import ipaddress
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from open_r1.common.errors import UserError

KEY_VARIABLE = "OPEN_R1_JUDGE_KEY"
"""Environment variable with the key of an endpoint that asks for one; it is sent and never recorded."""

_ATTEMPTS = 3
_PARALLEL = 16
_GIVE_UP = 2 * _PARALLEL  # failures in a row
_TIMEOUT = 120.0  # seconds for one reply
_PAUSE = 0.5  # seconds before the second attempt; twice that before the third
_REPLY_BYTES = 1 << 20
_MAX_TOKENS = 2048


@dataclass(frozen=True)
class Endpoint:
    """Where a judge model answers.

    Args:
        url: the base address, with or without `/v1` or `/v1/chat/completions`.
        model: the model's name there.
    """

    url: str
    model: str

    @property
    def address(self) -> str:
        """The address of chat completions."""
        base = self.url.rstrip("/").removesuffix("/chat/completions")
        return f"{base if base.endswith('/v1') else base + '/v1'}/chat/completions"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


def endpoint_of(words: Sequence[str]) -> Endpoint:
    """The endpoint of `--judge URL MODEL`.

    Raises:
        UserError: these are not an http address and a name.
    """
    if len(words) != 2 or not words[1].strip():
        raise UserError(f"--judge takes an address and a model's name, not {' '.join(words)!r:.200}: --judge URL MODEL")
    try:
        parts = urlsplit(words[0])
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        if usable and "@" in parts.netloc:
            raise UserError(f"--judge: a key does not belong into an address; put it into {KEY_VARIABLE}")
    except ValueError:
        usable = False
    if not usable:
        raise UserError(
            f"--judge {words[0]!r:.200} is no address; give that of an OpenAI-compatible server, such as "
            "http://localhost:8000/v1"
        )
    return Endpoint(*words)


def leaves_the_machine(endpoint: Endpoint) -> str | None:
    """A line that says that texts are sent outside; None for this machine and for private networks."""
    try:
        entries = socket.getaddrinfo(endpoint.host, None)
        addresses = {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries}
        outside = not addresses or any(not (address.is_loopback or address.is_private) for address in addresses)
    except (OSError, ValueError):
        outside = True  # a name that nothing here knows
    if not outside:
        return None
    return f"--judge: questions and answers are sent to {endpoint.host}, outside this machine and its private network"


@dataclass(frozen=True)
class Reply:
    """What came back for one prompt: a text, or the reason why there is none."""

    text: str | None
    error: str | None = None


def ask_all(endpoint: Endpoint, prompts: Sequence[str]) -> list[Reply]:
    """Ask all prompts, several at once, each up to three times; an endpoint that fails costs no exception.

    Where many prompts in a row came back without a reply, the rest are not asked: a server that is gone or hangs would
    otherwise hold up a training for hours.
    """
    if not prompts:
        return []
    in_a_row = 0  # of failures; threads may lose a count, which asks a few more

    def ask(prompt: str) -> Reply:
        nonlocal in_a_row
        if in_a_row >= _GIVE_UP:
            return Reply(None, f"not asked after {_GIVE_UP} failures in a row")
        reply = _ask(endpoint, prompt)
        in_a_row = in_a_row + 1 if reply.text is None else 0
        return reply

    with ThreadPoolExecutor(min(_PARALLEL, len(prompts)), thread_name_prefix="judge") as pool:
        return list(pool.map(ask, prompts))


def _ask(endpoint: Endpoint, prompt: str) -> Reply:
    error = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        try:
            return Reply(_request(endpoint, prompt))
        except urllib.error.HTTPError as problem:
            error = f"HTTP {problem.code}"
            if problem.code in (400, 401, 403, 404):
                break  # the same again would fail in the same way
        except (OSError, ValueError, LookupError, TypeError, RecursionError, http.client.HTTPException) as problem:
            error = f"{type(problem).__name__}: {_printable(problem)}"
    return Reply(None, error)


def _printable(problem: BaseException) -> str:
    """The beginning of an error's text, which may be the server's, in one line and without control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in f"{problem!s:.100}")


def _request(endpoint: Endpoint, prompt: str) -> str:
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": _MAX_TOKENS,
        "seed": 0,
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY_VARIABLE):
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode("utf-8", "backslashreplace")
    request = urllib.request.Request(endpoint.address, data, headers, method="POST")
    with _opener().open(request, timeout=_TIMEOUT) as response:
        content = json.loads(_body(response))["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise ValueError("the reply holds no text")
    return content


def _body(response: http.client.HTTPResponse) -> bytes:
    """At most `_REPLY_BYTES` of a reply; an error where it takes longer than `_TIMEOUT` as a whole, piece by piece."""
    pieces, size, until = [], 0, time.monotonic() + _TIMEOUT
    while size < _REPLY_BYTES and (piece := response.read1(_REPLY_BYTES - size)):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > until:
            raise TimeoutError(f"the reply was not complete after {_TIMEOUT:.0f} s")
    return b"".join(pieces)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A reply that points elsewhere is an error: texts go to the address that was given and to no other."""

    def redirect_request(self, *_: object) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    """Without proxies: a judge next door is not reached through one, and nothing else may read what is sent."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
