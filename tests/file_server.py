"""A real HTTP server on this machine that can misbehave, and the hub's library pointed at it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hybriddepth_ros.models.weights_catalogue import APACHE, Published

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Served:
    """What the server does with one path: it sends the body in `parts`, `pause` seconds apart.

    announced: Content-Length, where it is not the body's. stalls: it then says no more until the server ends.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    announced: int | None = None
    parts: int = 1
    pause: float = 0.0
    stalls: bool = False


class FileServer:
    """Serves `files`, by path, on 127.0.0.1, and keeps what it was asked: (method, path, headers)."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.ending = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve_hub(self, published: Published, body: bytes, **stated: str) -> None:
        """A file as the hub serves it, which states commit, size and SHA-256; `stated` replaces headers."""
        headers = {
            "x-repo-commit": published.revision,
            "x-linked-etag": f'"{hashlib.sha256(body).hexdigest()}"',
            "x-linked-size": str(len(body)),
        } | {name.replace("_", "-"): value for name, value in stated.items()}
        path = f"/{published.repository}/resolve/{published.revision}/{published.file}"
        self.files[path] = Served(body, headers=headers)

    def gets(self) -> list[str]:
        """The paths that were asked for with GET."""
        return [path for method, path, _ in self.asked if method == "GET"]


def _handler_of(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            server.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            served = server.files.get(self.path, Served(b"not here", status=404))
            self.send_response(served.status)
            length = len(served.body) if served.announced is None else served.announced
            for name, value in {"content-length": str(length), **served.headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if with_body:
                with contextlib.suppress(ConnectionError):  # whoever asked has hung up
                    self._send(served)

        def _send(self, served: Served) -> None:
            size = -(-len(served.body) // served.parts) or 1
            for start in range(0, len(served.body), size):
                if start and server.ending.wait(served.pause):
                    return
                self.wfile.write(served.body[start : start + size])
                self.wfile.flush()
            if served.stalls:
                server.ending.wait()

        def log_message(self, *_: object) -> None:
            """Tests print enough."""

    return Handler


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    """A FileServer that ends with the block."""
    server = FileServer()
    try:
        yield server
    finally:
        server.close()


def point_hub_at(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub as it would have been imported with HF_ENDPOINT and HF_HOME, and without proxies."""
    import huggingface_hub.constants
    import huggingface_hub.utils

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_TOKEN_PATH": str(cache / "token"),
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    huggingface_hub.utils.close_session()


def release_file(url: str, file: str = "made.ckpt") -> Published:
    """A file that its authors keep at an address of their own."""
    return Published("made", file, f"{url}/{file}", APACHE, {})


def hub_file(name: str = "made", file: str = "made.bin", sha256: str = "") -> Published:
    """A file on the hub."""
    url = f"https://huggingface.co/some/made/resolve/{COMMIT}/{file}"
    return Published(name, file, url, APACHE, {}, "some/made", COMMIT, sha256)
