"""A W&B server on this machine, with as much of its API as a run, a view and a report need. Keeps what it receives."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEPT = {"config": "config", "summaryMetrics": "summaryMetrics", "tags": "tags", "groupName": "group",
        "jobType": "jobType", "displayName": "displayName", "display_name": "displayName"}  # fmt: skip
USER = {
    "id": "u", "entity": "me", "username": "me", "name": "me", "email": "", "flags": "{}", "admin": False,
    "deletedAt": None, "teams": {"edges": []}, "apiKeys": {"edges": []},
}  # fmt: skip
PROJECT = {
    "id": "p", "internalId": "p", "name": "cinelora", "entityName": "me", "entity": {"id": "e", "name": "me"},
    "user": USER, "createdAt": "2026-01-01T00:00:00", "isBenchmark": False,
}  # fmt: skip
NODE = {"edges": [{"node": PROJECT, "cursor": "a"}], "pageInfo": {"endCursor": None, "hasNextPage": False}}


class FakeWandb(ThreadingHTTPServer):
    """`runs` by id, `views` by id (a report is a view of type "runs"), `uploads`: paths. `refused`: run ids."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.runs: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.uploads: list[str] = []
        self.refused: set[str] = set()

    def __enter__(self) -> FakeWandb:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def bucket(self, name: str) -> dict[str, Any]:
        blank = {
            "config": "{}",
            "summaryMetrics": "{}",
            "tags": [],
            "group": None,
            "jobType": None,
            "displayName": name,
        }
        known = self.runs.setdefault(name, blank)
        empty = dict.fromkeys(("history", "events", "sweepName", "description", "notes", "commit", "historyKeys"))
        counts = dict.fromkeys(("historyLineCount", "logLineCount", "eventsLineCount"), 0)
        times = dict.fromkeys(("createdAt", "heartbeatAt"), "2026-01-01T00:00:00")
        texts = {"historyTail": "[]", "eventsTail": "[]", "wandbConfig": "{}", "systemMetrics": "{}"}
        fixed = {"id": f"id-{name}", "projectId": "1", "name": name, "state": "finished", "readOnly": False}
        return {**fixed, **empty, **counts, **times, **texts, "user": USER, "project": PROJECT, **known}

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The `data` of a GraphQL reply, or None: permission denied."""
        name = variables.get("name") or (variables.get("id") or "").removeprefix("id-")
        if "upsertBucket" in query:
            if name in self.refused:
                return None
            self.bucket(name)
            self.runs[name] |= {key: variables[name] for name, key in KEPT.items() if variables.get(name)}
            return {"upsertBucket": {"bucket": self.bucket(name), "inserted": True}}
        if "upsertView" in query:
            ident = variables.get("id") or f"V{len(self.views)}"
            self.views[ident] = variables
            view = {
                "id": ident,
                "name": variables["name"],
                "type": variables["type"],
                "displayName": variables["displayName"],
            }
            rest = {"description": "", "spec": variables["spec"], "project": PROJECT, "user": USER}
            return {"upsertView": {"view": {**view, **rest, "createdAt": None, "updatedAt": None}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": each, "uploadUrl": f"{self.url}/up/{each}"} for each in variables["files"]]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        run = self.bucket(name) if name in self.runs else None
        return {
            "viewer": USER,
            "serverInfo": {"cliVersionInfo": {}, "features": [], "latestLocalVersionInfo": None},
            "models": NODE,
            "model": {**PROJECT, "bucket": run},
            "project": {**PROJECT, "run": run},
        }


class _Handler(BaseHTTPRequestHandler):
    server: FakeWandb

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self._body()
        self.server.uploads.append(self.path)
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path != "/graphql":
            self._reply({"exitcode": None, "limits": {}})
            return
        request = json.loads(body)
        data = self.server.answer(request["query"], request.get("variables") or {})
        denied = {"data": None, "errors": [{"message": "permission denied"}]}
        self._reply(denied if data is None else {"data": data}, 403 if data is None else 200)
