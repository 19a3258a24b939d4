"""Downloads come whole, checked and in bounded time, from servers that do not always behave."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models.download import Limits, download
from tests.file_server import (
    COMMIT,
    FileServer,
    Served,
    file_server,
    hub_file,
    point_hub_at,
    release_file,
)

BODY = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = "0" * 64
PATIENT = Limits(connect=20.0, silence=20.0, whole=60.0)
HURRIED = Limits(connect=0.5, silence=0.5, whole=60.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    return place


@pytest.fixture(autouse=True)
def _hub(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    point_hub_at(server.url, tmp_path / "cache", monkeypatch)
    yield
    huggingface_hub.close_session()


def refused(folder: Path, run: Callable[[], Any], *names: str) -> None:
    """The call ends with one line that names all of these, and nothing is left in the folder."""
    with pytest.raises(WeightsError) as raised:
        run()
    message = str(raised.value)
    assert "\n" not in message
    for name in names:
        assert name in message
    assert list(folder.iterdir()) == []


# ---- what a server sends


def test_a_whole_file_comes_with_its_size_and_hash(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(BODY)
    seen: list[tuple[int, int]] = []
    came = download(release_file(server.url), folder, SHA256, PATIENT, lambda *s: seen.append(s))
    assert came.path == folder / "made.ckpt" and came.path.read_bytes() == BODY
    assert (came.size, came.sha256, came.stated_sha256) == (len(BODY), SHA256, "")
    assert [path.name for path in folder.iterdir()] == ["made.ckpt"]
    assert seen[-1] == (len(BODY), len(BODY))


def test_a_file_that_is_cut_short_is_refused(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(BODY[:-7], announced=len(BODY))
    refused(
        folder,
        lambda: download(release_file(server.url), folder, limits=PATIENT),
        f"{server.url}/made.ckpt",
        f"{len(BODY) - 7} of {len(BODY)} bytes had come",
    )


def test_a_file_of_another_size_than_the_hub_states_is_refused(server: FileServer, folder: Path) -> None:
    more = str(len(BODY) + 1)
    server.serve_hub(hub_file(), BODY, x_linked_size=more)
    refused(
        folder, lambda: download(hub_file(), folder, limits=PATIENT), "256000 bytes", f"the hub states {more}"
    )
    server.serve_hub(hub_file(), BODY, x_linked_size=more, content_length="")
    refused(folder, lambda: download(hub_file(), folder, limits=PATIENT), f"256000 of {more} bytes")
    server.serve_hub(hub_file(), BODY, x_linked_size="10", content_length="")
    refused(folder, lambda: download(hub_file(), folder, limits=PATIENT), "longer than 10 bytes")


@pytest.mark.parametrize("body", [BODY[:1000], b""], ids=["in the middle", "before the first byte"])
def test_a_server_that_falls_silent_is_left(server: FileServer, folder: Path, body: bytes) -> None:
    server.files["/made.ckpt"] = Served(body, announced=len(BODY), stalls=True)
    had_come = "1000 of 256000 bytes had come" if body else "made.ckpt"
    refused(folder, lambda: download(release_file(server.url), folder, limits=HURRIED), had_come)


def test_a_server_that_sends_drop_by_drop_is_left_in_the_end(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(BODY, parts=len(BODY), pause=0.05)
    limits = Limits(connect=20.0, silence=20.0, whole=1.0)
    refused(folder, lambda: download(release_file(server.url), folder, limits=limits), "not whole after 1 s")


def test_headers_that_never_end_are_no_news(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not over.wait(0.05):
                        connection.sendall(b"X")
                except ConnectionError:
                    return

        over = threading.Event()
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        limits = Limits(connect=20.0, silence=0.5, whole=60.0)
        refused(folder, lambda: download(release_file(url), folder, limits=limits), "nothing came for 0.5 s")
        over.set()
        thread.join()


def test_a_slow_server_is_waited_for_as_long_as_it_sends(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(BODY, parts=8, pause=0.4)
    limits = Limits(connect=20.0, silence=2.0, whole=60.0)
    assert download(release_file(server.url), folder, limits=limits).sha256 == SHA256


@pytest.mark.parametrize(("status", "name"), [(404, "404 Not Found"), (403, "HF_TOKEN"), (503, "503")])
def test_another_answer_than_the_file_is_named(
    server: FileServer, folder: Path, status: int, name: str
) -> None:
    server.files["/made.ckpt"] = Served(b"a page that explains", status=status)
    refused(folder, lambda: download(release_file(server.url), folder, limits=PATIENT), name, "made.ckpt")


def test_another_file_than_the_expected_is_refused(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(BODY)
    refused(folder, lambda: download(release_file(server.url), folder, OTHER, PATIENT), SHA256, OTHER)


# ---- redirects


def test_redirects_are_followed_but_not_for_ever(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(status=302, headers={"location": "/there"})
    server.files["/there"] = Served(BODY)
    assert download(release_file(server.url), folder, limits=PATIENT).sha256 == SHA256
    (folder / "made.ckpt").unlink()
    server.files["/there"] = Served(status=302, headers={"location": "/made.ckpt"})
    refused(folder, lambda: download(release_file(server.url), folder, limits=PATIENT), "more than 10 times")


def test_no_redirect_leads_out_of_https(folder: Path) -> None:
    """On answers made here: a certificate for this machine, which https needs, cannot lie in a repository."""
    library = importlib.import_module(type(huggingface_hub.get_session()).__module__.partition(".")[0])
    asked = []

    def answer(request: Any) -> Any:
        asked.append(str(request.url))
        following = {
            "https://a.test/made.ckpt": "https://b.test/",
            "https://b.test/": "http://c.test/",
            "https://a.test/good.ckpt": "https://d.test/",
        }
        where = following.get(str(request.url))
        return (
            library.Response(302, headers={"location": where})
            if where
            else library.Response(200, content=BODY)
        )

    before = huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY
    huggingface_hub.set_client_factory(lambda: library.Client(transport=library.MockTransport(answer)))
    try:
        refused(
            folder,
            lambda: download(release_file("https://a.test"), folder, limits=PATIENT),
            "redirected out of https to http://c.test/",
        )
        assert "http://c.test/" not in asked
        assert download(release_file("https://a.test", "good.ckpt"), folder, limits=PATIENT).sha256 == SHA256
    finally:
        huggingface_hub.set_client_factory(before)


def test_the_hubs_token_goes_to_the_hub_alone(
    server: FileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_made")
    server.serve_hub(hub_file(), BODY)
    (path,) = server.files
    with file_server() as elsewhere:
        elsewhere.files["/blob"] = Served(BODY)
        kept = server.files[path]
        location = {**kept.headers, "location": f"{elsewhere.url}/blob", "content-length": "0"}
        server.files[path] = Served(status=302, headers=location)
        assert download(hub_file(), folder, limits=PATIENT).sha256 == SHA256
        asked = elsewhere.asked
    assert [headers.get("authorization") for _, _, headers in server.asked] == ["Bearer hf_made"] * 2
    assert [(method, headers.get("authorization")) for method, _, headers in asked] == [("GET", None)]


# ---- what the hub states


def test_a_file_of_the_hub_comes_with_the_hash_that_the_hub_states(server: FileServer, folder: Path) -> None:
    server.serve_hub(hub_file(), BODY)
    came = download(hub_file(), folder, limits=PATIENT)
    assert (came.sha256, came.stated_sha256, came.size) == (SHA256, SHA256, len(BODY))
    assert came.origin == f"{server.url}/some/made/resolve/{COMMIT}/made.bin"
    server.serve_hub(hub_file(), BODY, x_linked_etag='"a-git-hash"')  # of a file that is not in LFS
    assert download(hub_file(), folder, limits=PATIENT).stated_sha256 == ""


def test_a_file_that_the_stated_hash_does_not_fit_is_refused(server: FileServer, folder: Path) -> None:
    server.serve_hub(hub_file(), BODY, x_linked_etag=f'"{OTHER}"')
    refused(
        folder,
        lambda: download(hub_file(), folder, limits=PATIENT),
        f"SHA-256 {SHA256}",
        f"the hub states {OTHER}",
    )


def test_another_stated_hash_than_the_expected_is_refused_before_the_file_is_asked_for(
    server: FileServer, folder: Path
) -> None:
    server.serve_hub(hub_file(), BODY)
    refused(folder, lambda: download(hub_file(), folder, OTHER, PATIENT), SHA256, OTHER)
    assert server.gets() == []


@pytest.mark.parametrize(("commit", "name"), [("f" * 40, "f" * 40), ("", "no hub")])
def test_another_commit_than_the_pinned_one_is_refused(
    server: FileServer, folder: Path, commit: str, name: str
) -> None:
    server.serve_hub(hub_file(), BODY, x_repo_commit=commit)
    refused(folder, lambda: download(hub_file(), folder, limits=PATIENT), COMMIT, name)
    assert server.gets() == []


def test_what_the_hub_does_not_have_is_named(server: FileServer, folder: Path) -> None:
    refused(folder, lambda: download(hub_file(), folder, limits=PATIENT), "404", "made.bin")


def put_into_cache(cache: Path, body: bytes, name: str) -> Path:
    """A file as huggingface_hub keeps it: a blob under its hash, and a link under its commit and name."""
    blob = cache / "models--some--made" / "blobs" / name
    link = cache / "models--some--made" / "snapshots" / COMMIT / "made.bin"
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(body)
    link.symlink_to(blob)
    return link


def test_what_lies_in_the_hubs_cache_is_taken_without_asking(
    server: FileServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    kept = put_into_cache(tmp_path / "cache", BODY, SHA256)
    came = download(hub_file(), folder, limits=PATIENT)
    assert (came.path, came.sha256, came.stated_sha256) == (kept, SHA256, SHA256)
    assert server.asked == [] and kept.exists()


def test_a_damaged_file_in_the_hubs_cache_is_refused_by_its_path(folder: Path, tmp_path: Path) -> None:
    kept = put_into_cache(tmp_path / "cache", BODY[1:], SHA256)
    refused(folder, lambda: download(hub_file(), folder, limits=PATIENT), str(kept), SHA256)


# ---- no network


def test_offline_by_the_hubs_switch_asks_nobody(
    server: FileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    server.files["/made.ckpt"] = Served(BODY)
    for published in (hub_file(), release_file(server.url)):
        refused(
            folder,
            lambda p=published: download(p, folder, limits=PATIENT),
            "HF_HUB_OFFLINE",
            "weights import",
        )
    assert server.asked == []


@pytest.mark.parametrize("of_the_hub", [False, True])
@pytest.mark.parametrize("host", ["a closed port", "nowhere.invalid"])
def test_no_network_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, of_the_hub: bool
) -> None:
    said: tuple[str, ...] = ()  # of an unknown name: this machine's resolver says something, or nothing
    if host == "a closed port":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            host, said = f"127.0.0.1:{listener.getsockname()[1]}", ("not reached", "weights import FILE")
    point_hub_at(f"http://{host}", tmp_path / "cache", monkeypatch)
    published = hub_file() if of_the_hub else release_file(f"http://{host}")
    refused(folder, lambda: download(published, folder, limits=PATIENT), host, *said)


@pytest.mark.parametrize("of_the_hub", [False, True])
def test_a_name_lookup_without_end_is_left(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_the_hub: bool
) -> None:
    over = threading.Event()

    def without_end(*_: object, **__: object) -> list[Any]:
        over.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", without_end)
    point_hub_at("http://silent.test", tmp_path / "cache", monkeypatch)
    published = hub_file() if of_the_hub else release_file("http://silent.test")
    try:
        refused(
            folder,
            lambda: download(published, folder, limits=HURRIED),
            "silent.test",
            "nothing came for 0.5 s",
        )
    finally:
        over.set()


def test_a_host_that_does_not_answer_is_left(folder: Path) -> None:
    """A port whose queue is full drops what comes, as an address without a route does."""
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        refused(folder, lambda: download(release_file(url), folder, limits=HURRIED), "127.0.0.1", "0.5 s")


# ---- this machine


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, also where a shell started the tests in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_nothing_behind(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(BODY[:1000], announced=len(BODY), stalls=True)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(*_: int) -> None:
        assert [path.name for path in folder.iterdir()] == ["made.ckpt.part"]
        signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        download(release_file(server.url), folder, limits=PATIENT, progress=interrupt)
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_one_line(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(BODY)
    os.symlink("/dev/full", folder / "made.ckpt.part")
    refused(
        folder,
        lambda: download(release_file(server.url), folder, limits=PATIENT),
        "made.ckpt.part: expected room",
    )


def test_a_folder_that_is_not_there_is_named(folder: Path, server: FileServer) -> None:
    refused(
        folder,
        lambda: download(release_file(server.url), folder / "gone"),
        "gone",
        "a place that can be written",
    )


def test_a_mistake_in_this_code_is_not_passed_off_as_the_networks(server: FileServer, folder: Path) -> None:
    server.files["/made.ckpt"] = Served(BODY)

    def wrong(*_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        download(release_file(server.url), folder, limits=PATIENT, progress=wrong)
    assert list(folder.iterdir()) == []
