"""A small server that speaks the Hugging Face hub's protocol on the loopback address.

    with HubServer() as server:
        server.add("datasets", "someone/images", {"data/train.parquet": content})
        server.fail("/api/datasets/", status=503)
        ...  # HF_ENDPOINT=server.url, HF_HUB_DISABLE_XET=1
        assert server.requests == [("GET", "/api/datasets/someone/images"), ...]

As on the hub, a token that it does not know makes every request a 401, of public files too, and an unknown repository
is a 401 without a token and a 404 with one.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

import yaml

REPOSITORY = r"(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"
FILE = r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"


def make_user(name="someone", *, role="write", organisations=(), scopes=()):
    """What whoami answers; organisations: (name, role); scopes of a fine-grained token: (entity, permission)."""
    token = {"displayName": "test", "role": role}
    if role == "fineGrained":
        token["fineGrained"] = {
            "scoped": [{"entity": {"name": entity}, "permissions": [permission]} for entity, permission in scopes]
        }
    orgs = [{"type": "org", "name": organisation, "roleInOrg": role} for organisation, role in organisations]
    return {"type": "user", "name": name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}


@dataclass
class Repository:
    """Branch -> path -> content; each commit counts."""

    branches: dict = field(default_factory=lambda: {"main": {}})
    commits: list = field(default_factory=list)
    private: bool = False

    def files(self, revision):
        return self.branches.get(revision) or (self.branches["main"] if revision in (None, self.sha) else None)

    @property
    def sha(self):
        return hashlib.sha1(repr((len(self.commits), sorted(self.branches["main"].items()))).encode()).hexdigest()


class HubServer:
    """The server, its repositories, the tokens that it knows, the faults it is told to have, the requests it saw."""

    def __init__(self):
        self.repositories = {"models": {}, "datasets": {}}
        self.users = {"hf_good": make_user()}  # token -> what whoami answers
        self.objects = {}  # SHA-256 -> content of an uploaded large file
        self.requests = []
        self.warned = False  # whether a request came without a token, which the hub advises against
        self.tokens = []  # of the requests, in their order
        self._faults = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def add(self, kind, name, files):
        repository = self.repositories[kind].setdefault(name, Repository())
        repository.branches["main"].update(files)
        return repository

    def fail(self, path, *, method=".*", status=None, headers=(), message="", cut=None, seconds=0, times=10**9):
        """From now on answer matching requests with an error, cut the answer after so many bytes, or be slow."""
        fault = [re.compile(method), re.compile(path), status, dict(headers), message, cut, seconds, times]
        self._faults.insert(0, fault)  # the newest counts

    def take_fault(self, method, path):
        for fault in self._faults:
            if fault[-1] and fault[0].fullmatch(method) and fault[1].search(path):
                fault[-1] -= 1
                return fault[2:7]
        return None, {}, "", None, 0


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=(), *, length=None, cut=None):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if "Authorization" not in self.headers:
            self.send_header("X-HF-Warning", "unauthenticated; You are sending unauthenticated requests to the hub.")
            self.hub.warned = True
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def refuse(self, status, message, code=None, headers=()):
        codes = {"X-Error-Code": code} if code else {}
        self.answer(status, {"error": message}, {"X-Error-Message": message, **codes, **dict(headers)})

    def handle_request(self):
        self.path, _, query = self.path.partition("?")
        self.path, self.query = unquote(self.path), parse_qs(query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append((self.command, self.path))
        self.hub.tokens.append(token)
        status, headers, message, self.cut, seconds = self.hub.take_fault(self.command, self.path)
        time.sleep(seconds)
        if status is not None:
            return self.refuse(status, message, headers=headers)
        if self.cut == 0:
            self.close_connection = True
            return None
        if token is not None and token not in self.hub.users:
            return self.refuse(401, "Invalid credentials in Authorization header")
        self.user = self.hub.users.get(token)
        for method, pattern, route in ROUTES:
            found = re.fullmatch(pattern, self.path)
            if found and self.command in method:
                return route(self, **found.groupdict())
        return self.refuse(404, f"no route {self.command} {self.path}")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    # --- what a repository holds -------------------------------------------------------------------------------------

    def find(self, kind, id):
        repository = self.hub.repositories[kind].get(id)
        if repository is None or (repository.private and self.user is None):
            self.refuse(404 if self.user else 401, "Repository not found", "RepoNotFound")
            return None
        return repository

    def info(self, kind, id, revision=None):
        repository = self.find(kind, id)
        if repository is not None:
            files = repository.files(revision)
            if files is None:
                return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
            self.answer(200, {"id": id, "sha": repository.sha, "private": repository.private, "siblings": siblings})
        return None

    def tree(self, kind, id, revision, path=""):
        repository = self.find(kind, id)
        if repository is not None:
            prefix = f"{path}/" if path else ""
            files = {name: file for name, file in repository.files(revision).items() if name.startswith(prefix)}
            recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
            self.answer(200, _entries(files, prefix, recursive=recursive))

    def paths_info(self, kind, id, revision):
        repository = self.find(kind, id)
        if repository is not None:
            files, found = repository.files(revision), []
            for path in parse_qs(self.body.decode())["paths"]:
                if path in files:
                    found.append(_file(path, files[path]))
                elif any(name.startswith(f"{path}/") for name in files):
                    found.append({"type": "directory", "path": path, "oid": "0" * 40})
            self.answer(200, found)

    def resolve(self, kind, id, revision, path):
        repository = self.find("datasets" if kind else "models", id)
        if repository is None:
            return None
        content = repository.files(revision).get(path)
        commit = {"X-Repo-Commit": repository.sha}
        if content is None:
            return self.refuse(404, "Entry not found", "EntryNotFound", commit)
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes", **commit}
        start, end = 0, len(content)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2]) + 1, end) if wanted[2] else end
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        part = content[start:end]
        return self.answer(206 if wanted else 200, part, headers, cut=self.cut)

    # --- uploads -----------------------------------------------------------------------------------------------------

    def whoami(self):
        self.answer(200, self.user) if self.user else self.refuse(401, "Invalid username or password.")

    def auth_check(self, kind, id):
        if self.find(kind, id) is not None:
            self.answer(200, {})

    def create(self):
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or self.user['name']}/{wanted['name']}"
        if name in self.hub.repositories["models"]:
            return self.answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.hub.repositories["models"][name] = Repository(private=private)
        return self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def branch(self, kind, id, branch):
        repository = self.find(kind, id)
        if repository is not None:
            if branch in repository.branches:
                return self.refuse(409, "Reference already exists")
            repository.branches[branch] = {".gitattributes": b""}
            return self.answer(200, {})
        return None

    def preupload(self, kind, id, revision):
        if self.find(kind, id) is not None:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
            self.answer(200, {"files": files})

    def lfs_batch(self, id):
        wanted = json.loads(self.body)["objects"]
        objects = [entry | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{entry['oid']}"}}} for entry in wanted]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        self.answer(200)

    def commit(self, kind, id, revision):
        repository = self.find(kind, id)
        if repository is None:
            return None
        if revision not in repository.branches:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        lines = [json.loads(line) for line in self.body.splitlines()]
        added = [line["value"] for line in lines if line["key"] in ("file", "lfsFile")]
        for value in added:
            content = self.hub.objects[value["oid"]] if "oid" in value else base64.b64decode(value["content"])
            repository.branches[revision][value["path"]] = content
        repository.commits.append([value["path"] for value in added])
        sha = repository.sha
        return self.answer(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{id}/commit/{sha}"})

    def validate_yaml(self):
        header = yaml.safe_load(json.loads(self.body)["content"].partition("---")[2].partition("\n---")[0]) or {}
        invalid = [name for name in header.get("datasets", []) if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)]
        errors = [{"message": f'"datasets[0]" with value "{name}" is not valid'} for name in invalid]
        self.answer(400 if errors else 200, {"errors": errors, "warnings": []})


ROUTES = [
    ("GET", f"/api/{REPOSITORY}(/revision/(?P<revision>[^/]+))?", _Handler.info),
    ("GET", f"/api/{REPOSITORY}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?", _Handler.tree),
    ("POST", f"/api/{REPOSITORY}/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    ("GET HEAD", FILE, _Handler.resolve),
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("GET", f"/api/{REPOSITORY}/auth-check(/write)?", _Handler.auth_check),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", f"/api/{REPOSITORY}/branch/(?P<branch>.+)", _Handler.branch),
    ("POST", f"/api/{REPOSITORY}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/lfs/(?P<oid>.+)", _Handler.lfs_put),
    ("POST", f"/api/{REPOSITORY}/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
]


def _file(path, content):
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _entries(files, prefix, *, recursive):
    """The files below a folder, and the folders directly in it."""
    entries = []
    for path, content in files.items():
        folder, below, _ = path.removeprefix(prefix).partition("/")
        if below:
            entry = {"type": "directory", "path": prefix + folder, "oid": "0" * 40}
            if entry not in entries:
                entries.append(entry)
        if not below or recursive:
            entries.append(_file(path, content))
    return entries


@contextlib.contextmanager
def use_server(server, monkeypatch, home):
    """Point huggingface_hub and datasets, imported long ago, at a server and an empty cache folder."""
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(home / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(home))
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    close_session()
    try:
        yield server
    finally:
        close_session()
