"""One file over HTTP in bounded time: whole and hashed, or a WeightsError and nothing left behind."""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, TypeVar

from hybriddepth_ros.errors import WeightsError

T = TypeVar("T")

Progress = Callable[[int, int], None]  # bytes so far, bytes in all (0 = unknown)
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Limits:
    """How long each part of a download may take [s]: connecting (names and TLS too), one read, all of it."""

    connect_s: float = 5.0
    read_s: float = 30.0
    total_s: float = 3600.0


@dataclass(frozen=True)
class Downloaded:
    """What came: sha256 of the bytes; stated_sha256 and revision as the hub's headers have them, or ""."""

    sha256: str
    size: int
    stated_sha256: str = ""
    revision: str = ""


def download(
    url: str, target: Path, limits: Limits | None = None, progress: Progress | None = None
) -> Downloaded:
    """Fetch `url` into `target`, which appears when it is whole; WeightsError in one line otherwise."""
    limits = limits or Limits()
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            done = _receive(url, file, limits, progress or (lambda *_: None))
        os.replace(part, target)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise WeightsError(f"{url}: cannot be reached: {_reason(error.reason)}") from None
    except (TimeoutError, http.client.HTTPException, ConnectionError) as error:
        raise WeightsError(f"{url}: the download broke off: {_reason(error)}") from None
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return done


def _receive(url: str, file: IO[bytes], limits: Limits, progress: Progress) -> Downloaded:
    end = time.monotonic() + limits.total_s
    redirects = _Redirects(url)
    opener = urllib.request.build_opener(redirects, *_bounded_handlers(limits))
    request = urllib.request.Request(
        url, headers={"User-Agent": "hybriddepth_ros", "Accept-Encoding": "identity"}
    )
    waiting_s = min(limits.connect_s + limits.read_s, limits.total_s)
    with within(waiting_s, lambda: opener.open(request), "no answer") as response:
        announced = int(response.headers.get("Content-Length") or 0)
        digest, size = hashlib.sha256(), 0
        while block := response.read1(_BLOCK):  # returns with what one read of the socket gives
            file.write(block)
            digest.update(block)
            size += len(block)
            progress(size, announced)
            if time.monotonic() > end:
                raise TimeoutError(f"{size} bytes in {limits.total_s:g} s")
        if announced and size != announced:
            raise WeightsError(f"{url}: cut short: {size} of {announced} bytes")
    headers = redirects.first or response.headers
    stated = (headers.get("X-Linked-Etag") or "").strip('W/"')
    is_sha256 = len(stated) == 64 and all(c in "0123456789abcdef" for c in stated)
    return Downloaded(
        digest.hexdigest(), size, stated if is_sha256 else "", headers.get("X-Repo-Commit") or ""
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the headers of the first answer, where the hub states hash and revision; never leaves https."""

    def __init__(self, url: str) -> None:
        self.first: Message | None = None
        self._secure = url.startswith("https:")

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if self.first is None:
            self.first = headers
        if self._secure and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it redirects to {newurl.split('/')[0]} without encryption")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _bounded_handlers(limits: Limits) -> list[urllib.request.BaseHandler]:
    """Handlers whose connections have a time-out for connecting and another for reading."""

    def bounded(kind: type[http.client.HTTPConnection]) -> Any:
        def make(host: str, **arguments: Any) -> http.client.HTTPConnection:
            connection = kind(host, **{**arguments, "timeout": limits.connect_s})
            connect = connection.connect

            def connect_in_time() -> None:
                within(limits.connect_s, connect, "no connection")
                connection.sock.settimeout(limits.read_s)

            connection.connect = connect_in_time  # type: ignore[method-assign]
            return connection

        return make

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(bounded(http.client.HTTPConnection), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(bounded(http.client.HTTPSConnection), req)

    return [Http(), Https()]


def within(limit_s: float, work: Callable[[], T], what: str) -> T:
    """work(), or TimeoutError after `limit_s`: no time-out of a socket holds for looking up its name."""
    results: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def run() -> None:
        try:
            results.put((True, work()))
        except BaseException as error:
            results.put((False, error))

    threading.Thread(target=run, name="download", daemon=True).start()
    try:
        done, result = results.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError(f"{what} within {limit_s:g} s") from None
    if not done:
        raise result
    value: T = result
    return value


def _reason(reason: Any) -> str:
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return " ".join(str(text).split())
