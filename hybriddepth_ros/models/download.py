"""One published file from the net: whole, with its SHA-256, in bounded time, or not at all.

Both kinds of publisher are reached through huggingface_hub's HTTP session, so what its users set holds here:
proxies, certificates, HF_HUB_OFFLINE, and for files of the hub HF_ENDPOINT, tokens and the hub's own cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hybriddepth_ros.errors import WeightsError, one_line
from hybriddepth_ros.models.weights_catalogue import Published

Progress = Callable[[int, int], None]  # bytes so far, bytes announced (0 = not announced)

_MOST_REDIRECTS = 10
_MOST_BYTES = 8 << 30  # six times the largest file of the catalogue
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Limits:
    """How long a download may take, in seconds.

    connect: one connection. silence: any time in which nothing new comes, name lookup and redirects included.
    whole: the whole download.
    """

    connect: float = 8.0
    silence: float = 15.0
    whole: float = 7200.0


@dataclass(frozen=True)
class Downloaded:
    """A whole file. origin: its address, or its path in the hub's cache; stated_sha256: the hub's, or ""."""

    path: Path
    size: int
    sha256: str
    stated_sha256: str
    origin: str


def download(
    published: Published,
    folder: Path,
    expected_sha256: str = "",
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Downloaded:
    """Bring a published file into `folder`, or find it in the hub's cache on this machine.

    WeightsError says in one line why not. Then, as after Ctrl-C, nothing is left in `folder`; the file
    appears there under its name when it is whole and its SHA-256 is the expected and the stated one.
    """
    kept = _in_cache(published)
    if kept is not None:
        _check_sha256(kept, expected_sha256)
        return kept
    path = folder / published.file
    part = folder / f"{published.file}.part"
    try:
        with part.open("wb") as file:
            transfer = _Transfer(published, file, expected_sha256, limits or Limits(), progress)
            size, sha256, stated = transfer.run()
        came = Downloaded(path, size, sha256, stated, address_of(published))
        _check_sha256(came, expected_sha256)
        os.replace(part, path)
    except OSError as error:
        raise WeightsError(f"{path}: expected a place that can be written: {one_line(error)}") from None
    finally:
        part.unlink(missing_ok=True)
    return came


def address_of(published: Published) -> str:
    """Where the file is asked for: on the hub, or its mirror named by HF_ENDPOINT, or at its own address."""
    if not published.repository:
        return published.url
    url: str = _hub().hf_hub_url(published.repository, published.file, revision=published.revision)
    return url


class _Transfer:
    """One download, in a thread of its own: a name lookup has no time-out, and nothing can interrupt it."""

    def __init__(
        self,
        published: Published,
        file: BinaryIO,
        expected_sha256: str,
        limits: Limits,
        progress: Progress | None,
    ) -> None:
        self._published, self._file, self._expected_sha256 = published, file, expected_sha256
        self._limits, self._progress = limits, progress
        self._url = address_of(published)
        self._size = self._announced = 0
        self._began = self._heard = time.monotonic()
        self._given_up = threading.Event()
        self._outcome: queue.SimpleQueue[tuple[int, str, str] | BaseException] = queue.SimpleQueue()

    def run(self) -> tuple[int, str, str]:
        """Size, SHA-256 and stated SHA-256 of what is now in the file; WeightsError if it is not whole."""
        threading.Thread(target=self._work, name="download", daemon=True).start()
        try:
            outcome = self._awaited()
        finally:
            self._given_up.set()  # the thread ends at its next byte, or at its own time-out
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _awaited(self) -> tuple[int, str, str] | BaseException:
        while True:
            now = time.monotonic()
            silence = self._heard + self._limits.silence - now
            whole = self._began + self._limits.whole - now
            if min(silence, whole) <= 0:
                limit = f"nothing came for {self._limits.silence:g} s"
                if whole <= 0:
                    limit = f"not whole after {self._limits.whole:g} s"
                raise WeightsError(f"{self._url}: {limit}{self._so_far()}")
            with contextlib.suppress(queue.Empty):
                return self._outcome.get(timeout=min(silence, whole))

    def _work(self) -> None:
        try:
            self._outcome.put(self._receive())
        except BaseException as error:  # whatever it is, the thread that waits has to hear of it
            self._outcome.put(error)

    def _receive(self) -> tuple[int, str, str]:
        errors = _hub().errors
        # What the session raises. The HTTP library changes with the hub's version, this relation does not.
        http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
        try:
            stated, size = self._ask_hub() if self._published.repository else ("", 0)
            with self._opened() as response:
                return *self._read(response, size), stated
        except errors.OfflineModeIsEnabled:
            raise WeightsError(
                f"{self._url}: not downloaded, as HF_HUB_OFFLINE is set; `hybriddepth weights import FILE`"
                " takes a file that is here"
            ) from None
        except (http_error, OSError) as error:
            raise WeightsError(f"{self._url}: {self._reason(error)}") from None

    def _ask_hub(self) -> tuple[str, int]:
        """SHA-256 ("" for a file that is not in LFS) and size (0 = unknown) as the hub states them."""
        with self._settings():
            stated = _hub().get_hf_file_metadata(self._url, timeout=self._limits.connect)
        self._heard = time.monotonic()
        if stated.commit_hash != self._published.revision:
            raise WeightsError(
                f"{self._url}: expected the commit {self._published.revision}, the answer is of"
                f" {stated.commit_hash or 'none: no hub is there'}"
            )
        sha256 = stated.etag if _SHA256.fullmatch(stated.etag or "") else ""
        if sha256 and self._expected_sha256 and sha256 != self._expected_sha256:
            raise WeightsError(
                f"{self._url}: the hub states the SHA-256 {sha256}, expected {self._expected_sha256}"
            )
        return sha256, stated.size or 0

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """What the HTTP library makes of addresses and proxies that the environment sets."""
        try:
            yield
        except (ImportError, ValueError) as error:
            raise WeightsError(
                f"{self._url}: not reached; proxy or HF_ENDPOINT in the environment: {one_line(error)}"
            ) from None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """The response that carries the file, after all redirects; none may lead out of https."""
        headers = {"accept-encoding": "identity"}
        if self._published.repository:
            headers |= _hub().utils.build_hf_headers()
        limits = self._limits
        # connect, read, write, wait for a free connection
        timeout = (limits.connect, limits.silence, limits.silence, limits.connect)
        with self._settings():
            session = _hub().get_session()
            request = session.build_request("GET", self._url, headers=headers, timeout=timeout)
        for _ in range(1 + _MOST_REDIRECTS):
            with self._settings():
                response = session.send(request, stream=True, follow_redirects=False)
            self._heard = time.monotonic()
            try:
                if response.next_request is None:
                    if response.status_code != 200:
                        raise WeightsError(f"{self._url}: {_status(response)}")
                    yield response
                    return
            finally:
                response.close()
            if request.url.scheme == "https" and response.next_request.url.scheme != "https":
                raise WeightsError(f"{self._url}: redirected out of https to {response.next_request.url}")
            request = response.next_request
        raise WeightsError(f"{self._url}: redirected more than {_MOST_REDIRECTS} times")

    def _read(self, response: Any, stated_size: int) -> tuple[int, str]:
        """Size and SHA-256 of the body, which goes into the file."""
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        length = response.headers.get("content-length", "")
        announced = 0 if encoded or not length.isdecimal() else int(length)
        if stated_size and announced and announced != stated_size:
            raise WeightsError(f"{self._url}: of {announced} bytes, where the hub states {stated_size}")
        self._announced = stated_size or announced
        most = self._announced or _MOST_BYTES
        digest = hashlib.sha256()
        for block in response.iter_bytes():
            if self._given_up.is_set():
                break
            self._heard = time.monotonic()
            self._size += len(block)
            if self._size > most or most > _MOST_BYTES:
                raise WeightsError(f"{self._url}: longer than {min(most, _MOST_BYTES)} bytes")
            digest.update(block)
            self._write(block)
            if self._progress:
                self._progress(self._size, self._announced)
        if self._announced and self._size != self._announced:
            raise WeightsError(f"{self._url}: cut short{self._so_far()}")
        return self._size, digest.hexdigest()

    def _write(self, block: bytes) -> None:
        try:
            self._file.write(block)
        except OSError as error:  # named apart from what the network raises
            raise WeightsError(
                f"{self._file.name}: expected room to write {self._announced} bytes: {one_line(error)}"
            ) from None

    def _reason(self, error: Exception) -> str:
        response = getattr(error, "response", None)
        if response is not None:
            return _status(response)
        if self._size:
            return f"broken off: {one_line(error)}{self._so_far()}"
        return f"not reached: {one_line(error)}; `hybriddepth weights import FILE` takes a file that is here"

    def _so_far(self) -> str:
        if not self._size:
            return ""
        of = f" of {self._announced}" if self._announced else ""
        return f", {self._size}{of} bytes had come"


def _in_cache(published: Published) -> Downloaded | None:
    """The file of this very commit, where another program of this user has fetched it; None without one."""
    if not published.repository:
        return None
    path = _hub().try_to_load_from_cache(published.repository, published.file, revision=published.revision)
    if not isinstance(path, str):
        return None
    from hybriddepth_ros.models.checkpoint_files import sha256_of  # and with it torch, which takes seconds

    blob = Path(path).resolve()  # the cache names what it keeps by the hash that the hub stated
    stated = blob.name if _SHA256.fullmatch(blob.name) else ""
    return Downloaded(Path(path), blob.stat().st_size, sha256_of(blob), stated, path)


def _check_sha256(came: Downloaded, expected: str) -> None:
    for whose, sha256 in (("expected", expected), ("the hub states", came.stated_sha256)):
        if sha256 and came.sha256 != sha256:
            raise WeightsError(
                f"{came.origin}: not the file that it should be: SHA-256 {came.sha256}, {whose} {sha256}"
            )


def _hub() -> Any:
    """huggingface_hub, imported when something is fetched."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise WeightsError(f"fetching needs the Python package huggingface_hub: {one_line(error)}") from None
    except ValueError as error:
        raise WeightsError(f"HF_... in the environment: no setting of the hub: {one_line(error)}") from None
    return huggingface_hub


def _status(response: Any) -> str:
    hint = "; does it want a token (HF_TOKEN)?" if response.status_code in (401, 403) else ""
    return f"answered {response.status_code} {response.reason_phrase}{hint}"
