"""A hub on this machine: enough of its HTTP interface that huggingface_hub fetches from it and pushes to it.

Large files (safetensors, pickles) are LFS files as on the hub: named by their SHA-256 and served by a redirect to
another host. The server writes down every request, can cut connections off and can stop in the middle of a file.
"""

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_BLOCK = 1 << 20


@dataclass
class Request:
    """One request as it came in."""

    method: str
    host: str
    path: str
    start: int | None = None  # first byte of a Range
    authorization: str | None = None
    sent: int = 0  # bytes of the body that went out
    body: bytes = b""


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pt"))


@dataclass
class LocalHub:
    """Repositories by name, each a table of file name -> content."""

    repositories: dict[str, dict[str, bytes]]
    cuts: int = 0
    """How many more answers are cut off after `cut_after` bytes."""
    cut_after: int = 0
    stall_after: int | None = None
    """A large file's answer stops here, and the connection stays open."""
    damaged: set[str] = field(default_factory=set)
    """Files that arrive with one byte changed."""
    requests: list[Request] = field(default_factory=list)
    pushed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)
    """Repositories that everybody can read; one that is not created as private joins them."""

    def __enter__(self) -> "LocalHub":
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sent(self, ending: str = "") -> int:
        """Bytes that went out for files whose path ends so."""
        return sum(r.sent for r in self.requests if r.method == "GET" and r.path.endswith(ending))

    def file_of(self, digest: str) -> tuple[str, bytes]:
        for files in self.repositories.values():
            for name, data in files.items():
                if hashlib.sha256(data).hexdigest() == digest:
                    return name, data
        raise KeyError(digest)


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if is_large(name):
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
    return entry


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _note(self) -> Request:
            span = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            path = unquote(urlsplit(self.path).path)
            noted = Request(self.command, self.headers["Host"].partition(":")[0], path)
            noted.start = int(span[1]) if span else None
            noted.authorization = self.headers.get("Authorization")
            noted.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append(noted)
            return noted

        def _answer(self, status: int, value: Any = None, **headers: str) -> None:
            data = b""
            if value is not None:
                data, headers = json.dumps(value).encode(), {"Content-Type": "application/json", **headers}
            self.send_response(status)
            for name, text in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            noted = self._note()
            if noted.path.startswith("/cdn/"):
                return self._send_file(noted, *hub.file_of(noted.path.rsplit("/", 1)[-1]))
            api = re.fullmatch(
                r"/api/(?:models|datasets)/([^/]+/[^/]+)(/revision/.+|/tree/[^/]+(?:/(?P<under>.*))?)?", noted.path
            )
            place = noted.path.removeprefix("/datasets")
            name = api[1] if api else "/".join(place.split("/")[1:3])
            if name in hub.pushed and name not in hub.repositories:
                about = {"id": name, "sha": COMMIT, "siblings": [], "tags": [], "private": name not in hub.public}
                return self._answer(200, about)
            if name not in hub.repositories:
                return self._answer(404, {"error": "no"}, X_Error_Code="RepoNotFound", X_Error_Message="no")
            if "refs/convert/" in noted.path:
                return self._answer(404, {"error": "no"}, X_Error_Code="RevisionNotFound", X_Error_Message="no")
            files = hub.repositories[name]
            if api and "/tree/" in noted.path:
                return self._send_tree(files, api["under"])
            if api:
                return self._answer(200, {"id": name, "sha": COMMIT, "siblings": [], "tags": []})
            file = re.fullmatch(r"/[^/]+/[^/]+/resolve/[^/]+/(.*)", place)
            if file is None or file[1] not in files:
                return self._answer(404, {"error": "no"}, X_Error_Code="EntryNotFound", X_Error_Message="no")
            return self._resolve(noted, file[1], files[file[1]])

        def _send_tree(self, files: dict[str, bytes], under: str | None) -> None:
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            prefix = f"{under}/" if under else ""
            matching = [name for name in files if name.startswith(prefix)]
            if under and not matching:
                return self._answer(404, {"error": "no"}, X_Error_Code="EntryNotFound", X_Error_Message="no")
            listed = [name for name in matching if recursive or "/" not in name[len(prefix) :]]
            return self._answer(200, [_entry(name, files[name]) for name in listed])

        def _resolve(self, noted: Request, name: str, data: bytes) -> None:
            entry = _entry(name, data)
            marks = {"X_Repo_Commit": COMMIT, "ETag": f'"{entry["oid"]}"', "Accept_Ranges": "bytes"}
            if "lfs" in entry:
                marks |= {"X_Linked_Etag": f'"{entry["lfs"]["oid"]}"', "X_Linked_Size": str(len(data))}
                place = f"http://localhost:{hub.port}/cdn/{entry['lfs']['oid']}"
                return self._answer(302, Location=place, **marks)
            if self.command == "HEAD":
                self.send_response(200)
                for key, value in {**marks, "Content-Length": str(len(data))}.items():
                    self.send_header(key.replace("_", "-"), value)
                return self.end_headers()
            return self._send_file(noted, name, data, marks)

        def _send_file(self, noted: Request, name: str, data: bytes, marks: dict[str, str] | None = None) -> None:
            if name in hub.damaged:
                data = data[:-1] + bytes([data[-1] ^ 1])
            start = noted.start or 0
            self.send_response(200 if noted.start is None else 206)
            if noted.start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            for key, value in (marks or {}).items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            cut = hub.cuts > 0 and len(data) - start > hub.cut_after
            hub.cuts -= cut
            end = start + hub.cut_after if cut else len(data)
            for at in range(start, end, _BLOCK):
                self.wfile.write(data[at : min(end, at + _BLOCK)])
                noted.sent += min(end, at + _BLOCK) - at
                while hub.stall_after is not None and at + _BLOCK > hub.stall_after and not hub.over.is_set():
                    time.sleep(0.01)
            if cut:
                self.close_connection = True
                self.connection.shutdown(2)

        # --- pushing: create, ask how to upload, upload what is large, commit -------------------------------------

        def do_POST(self) -> None:
            noted = self._note()
            value: Any = None if "/commit/" in noted.path else json.loads(noted.body)
            if noted.path == "/api/repos/create":
                name = f"{value.get('organization') or 'somebody'}/{value['name']}"
                if name not in hub.pushed and value.get("visibility") != "private":
                    hub.public.add(name)
                hub.pushed.setdefault(name, {})
                return self._answer(200, {"url": f"{hub.url}/{name}", "id": name, "name": name})
            if noted.path == "/api/validate-yaml":
                return self._answer(200, {"errors": [], "warnings": []})
            name = "/".join(noted.path.split("/")[3:5]).removesuffix(".git")
            if "/preupload/" in noted.path:
                modes = [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if is_large(f["path"]) else "regular",
                        "shouldIgnore": False,
                    }
                    for f in value["files"]
                ]
                return self._answer(200, {"files": modes})
            if noted.path.endswith("/info/lfs/objects/batch"):
                return self._answer(
                    200, {"transfer": "basic", "objects": [self._upload_of(o) for o in value["objects"]]}
                )
            if "/commit/" in noted.path:
                self._commit(name, [json.loads(line) for line in noted.body.splitlines()])
                address = f"{hub.url}/{name}/commit/{COMMIT}"
                return self._answer(200, {"commitUrl": address, "commitOid": COMMIT, "hookOutput": ""})
            return self._answer(404, {"error": noted.path})

        def _upload_of(self, wanted: dict[str, Any]) -> dict[str, Any]:
            place = {"href": f"{hub.url}/upload/{wanted['oid']}"}
            return {"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": place}}

        def do_PUT(self) -> None:
            noted = self._note()
            hub.uploads[noted.path.rsplit("/", 1)[-1]] = noted.body
            self._answer(200)

        def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
            import base64

            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    hub.pushed[name][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.pushed[name][value["path"]] = hub.uploads[value["oid"]]

    return Handler
