"""A local stand-in for Vault: the key-value engine, version 2, and the AppRole login, with Vault 1.21's own answers.

Vault itself is no dependency of the tests. The bodies and status codes are those that its API documents.
"""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

METADATA = {
    "created_time": "2026-01-02T03:04:05.678901234Z",
    "custom_metadata": None,
    "deletion_time": "",
    "destroyed": False,
    "version": 2,
}
ENVELOPE = {
    "request_id": "5a4c7f0e-8a0b-7a9e-9d2c-2f5a0c1d3b4e",
    "lease_id": "",
    "renewable": False,
    "lease_duration": 0,
    "wrap_info": None,
    "warnings": None,
    "auth": None,
    "mount_type": "kv",
}


class VaultServer:
    """token opens `secret/probewatch`; role_id and secret_id give it. state : ready, sealed or deleted."""

    def __init__(self, token: str, fields: Mapping[str, str], role_id: str = "role", secret_id: str = "") -> None:
        self.token = token
        self.fields = dict(fields)
        self.login = {"role_id": role_id, "secret_id": secret_id}
        self.state = "ready"
        self.reads = 0
        self.address = ""

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> tuple[int, Any]:
        if self.state == "sealed":
            return 503, {"errors": ["Vault is sealed"]}
        if (method, path) == ("POST", "/v1/auth/approle/login"):
            if json.loads(body) != self.login:
                return 400, {"errors": ["invalid role or secret ID"]}
            auth = {"client_token": self.token, "policies": ["default"], "lease_duration": 1200, "renewable": True}
            return 200, ENVELOPE | {"data": None, "auth": auth, "mount_type": ""}
        if token != self.token:
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        self.reads += 1
        if path != "/v1/secret/data/probewatch":
            return 404, {"errors": []}
        if self.state == "deleted":
            gone = METADATA | {"deletion_time": "2026-01-03T00:00:00Z"}
            return 404, ENVELOPE | {"data": {"data": None, "metadata": gone}}
        return 200, ENVELOPE | {"data": {"data": self.fields, "metadata": METADATA}}

    @contextlib.contextmanager
    def serving(self, context: ssl.SSLContext | None = None) -> Iterator["VaultServer"]:
        vault = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, answer = vault.answer(self.command, self.path, self.headers.get("X-Vault-Token"), body)
                text = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET  # noqa: N815 the server looks for this name

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.address = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
