"""A small server on loopback that speaks what the libraries of Hugging Face and ModelScope ask of their hubs."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NoReturn
from urllib.parse import parse_qs, quote, unquote, urlsplit

PAGE = 5
Files = dict[str, bytes]


class Hub:
    """What a hub holds; change it while it serves.

    Attributes:
        commits: (kind, repository) → revision → its files; a revision is a branch, a tag or a commit.
        token: What requests must show, if anything.
        seen: What was asked: method, path, the Authorization header.
        without_ranges: Answer ranges with the whole file, as some mirrors do.
        silence: Seconds without a word before each answer.
    """

    def __init__(self) -> None:
        self.url = ""
        self.commits: dict[tuple[str, str], dict[str, str]] = {}
        self.trees: dict[str, Files] = {}
        self.token: str | None = None
        self.seen: list[tuple[str, str, str]] = []
        self.without_ranges = False
        self.silence = 0.0
        self.awake = threading.Event()  # ends every silence

    def publish(self, kind: str, repository: str, files: Mapping[str, bytes], *revisions: str) -> str:
        """Make a commit that holds files, let branches or tags lead to it, and return it."""
        commit = sha1(repr((kind, repository, sorted(files.items()))).encode()).hexdigest()
        self.trees[commit] = dict(files)
        refs = self.commits.setdefault((kind, repository), {})
        refs |= dict.fromkeys((*revisions, commit), commit)
        return commit


class _Answer(Exception):  # noqa: N818  (it is no error)
    def __init__(self, status: int, body: object = b"", **headers: str) -> None:
        self.status, self.headers = status, headers
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is http.server's)
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        form = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        shown = self.headers.get("authorization", "") + self.headers.get("cookie", "")
        self.hub.seen.append((self.command, self.path, shown))
        self.hub.awake.wait(self.hub.silence)
        try:
            self._route(form, shown)
        except _Answer as answer:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

    def _route(self, form: str, shown: str) -> NoReturn:
        if self.hub.token and self.hub.token not in shown:
            raise _Answer(401, {"error": "unauthorized"}, **{"X-Error-Code": "RepoNotFound"})
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if found := re.fullmatch(r"/api/v1/(model|dataset)s/([^/]+/[^/]+)/repo(/files|/tree)?", parts.path):
            self._modelscope(found[1], found[2], found[3], query)
        elif found := re.fullmatch(
            r"/api/(model|dataset|space)s/([^/]+/[^/]+)/(revision|tree|paths-info)/([^/]+)(?:/(.*))?", parts.path
        ):
            kind, repository, verb, revision, path = found.groups()
            commit, files = self._hf_tree(kind, repository, unquote(revision))
            if verb == "revision":
                raise _Answer(200, {"id": repository, "sha": commit, "lastModified": "2024-03-01T12:00:00.000Z"})
            if verb == "paths-info":
                raise _Answer(200, _entries(files, parse_qs(form).get("paths", [])))
            self._hf_listing(files, unquote(path or ""), query)
        elif found := re.fullmatch(r"/(?:(dataset|space)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", parts.path):
            _, files = self._hf_tree(found[1] or "model", found[2], unquote(found[3]))
            path = unquote(found[4])
            if path not in files:
                raise _Answer(404, **{"X-Error-Code": "EntryNotFound"})
            self._content(files[path])
        raise _Answer(404)

    def _hf_tree(self, kind: str, repository: str, revision: str) -> tuple[str, Files]:
        refs = self.hub.commits.get((kind, repository))
        if refs is None:
            raise _Answer(404, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"})
        if revision not in refs:
            raise _Answer(404, {"error": "Revision not found"}, **{"X-Error-Code": "RevisionNotFound"})
        return refs[revision], self.hub.trees[refs[revision]]

    def _hf_listing(self, files: Files, path: str, query: Mapping[str, str]) -> NoReturn:
        below = [name for name in files if not path or name.startswith(f"{path}/")]
        if path and not below:
            raise _Answer(404, {"error": "Entry not found"}, **{"X-Error-Code": "EntryNotFound"})
        names = sorted({*below, *(name[: name.rindex("/")] for name in below if "/" in name)})
        start = int(query.get("cursor", "0"))
        headers = {}
        if start + PAGE < len(names):
            where = f"{self.hub.url}{urlsplit(self.path).path}?recursive=True&cursor={start + PAGE}"
            headers["Link"] = f'<{where}>; rel="next"'
        raise _Answer(200, _entries(files, names[start : start + PAGE]), **headers)

    def _modelscope(self, kind: str, repository: str, verb: str | None, query: Mapping[str, str]) -> NoReturn:
        refs = self.hub.commits.get((kind, repository), {})
        if query.get("Revision") not in refs:
            raise _Answer(404, {"Code": 10010205001, "Message": "not found", "Success": False})
        files = self.hub.trees[refs[query["Revision"]]]
        if verb is None:
            if query["FilePath"] not in files:
                raise _Answer(404, {"Code": 10010205001, "Message": "no such file", "Success": False})
            self._content(files[query["FilePath"]])
        found = [
            {
                "Path": name,
                "Size": len(data),
                "Sha256": sha256(data).hexdigest(),
                "Type": "blob",
                "CommittedDate": 1_700_000_000,
            }
            for name, data in files.items()
        ]
        start = (int(query.get("PageNumber", "1")) - 1) * int(query.get("PageSize", "100000"))
        found = found[start : start + int(query.get("PageSize", "100000"))]
        found += [{"Path": "folder", "Size": 0, "Type": "tree"}] if not start else []
        raise _Answer(200, {"Code": 200, "Success": True, "Data": {"Files": found}})

    def _content(self, data: bytes) -> NoReturn:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if asked is None or self.hub.without_ranges:
            raise _Answer(200, data)
        start, end = int(asked[1]), min(len(data), int(asked[2]) + 1 if asked[2] else len(data))
        raise _Answer(206, data[start:end], **{"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})


def _entries(files: Files, names: list[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for name in names:
        if name in files:
            digest = sha1(files[name]).hexdigest()
            found.append({"type": "file", "path": name, "size": len(files[name]), "oid": digest})
        elif any(each.startswith(f"{name}/") for each in files):
            found.append({"type": "directory", "path": name, "oid": sha1(quote(name).encode()).hexdigest()})
    return found


@contextmanager
def hub_running() -> Iterator[Hub]:
    """Serve a hub for the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.awake.set()
            server.shutdown()
            thread.join()
