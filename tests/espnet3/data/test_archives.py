"""Archives and downloads are not trusted."""

from __future__ import annotations

import io
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from espnet3.data.archives import content_sha256, download, unpack
from espnet3.utils.errors import DataError, StorageError


@pytest.fixture(params=["filters", "no filters"])
def either_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as by a Python that has extraction filters, and as by Debian 12's 3.11.2."""
    if request.param == "no filters":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


def write_tar(path: Path, name: str, content: bytes = b"words", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.usefixtures("either_python")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Python 3.12, which has filters
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_unpack(hostile_path: Path, mode: str) -> None:
    unpack(write_tar(hostile_path / "a.tar", "folder/file", mode=mode), hostile_path / "out")
    assert (hostile_path / "out" / "folder" / "file").read_bytes() == b"words"


@pytest.mark.usefixtures("either_python")
@pytest.mark.parametrize("name", ["../escaped", "folder/../../escaped", "/escaped/../../escaped"])
def test_path_escape_is_refused(tmp_path: Path, name: str) -> None:
    archive = write_tar(tmp_path / "a.tar.gz", name)
    with pytest.raises(DataError, match="is refused"):
        unpack(archive, tmp_path / "inner" / "out")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.usefixtures("either_python")
def test_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../outside"
        archive.addfile(link)
    with pytest.raises(DataError, match="is refused"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_truncated_archive(tmp_path: Path, mode: str) -> None:
    archive = write_tar(tmp_path / "a.tar", "file", bytes(range(256)) * 500, mode)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match=r"a\.tar .*truncated"):
        unpack(archive, tmp_path / "out")


def test_no_archive_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.tar.xz").write_text("an error page")
    with pytest.raises(DataError, match=r"a\.tar\.xz is not a tar archive"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "out")


def test_full_disk_while_unpacking(tmp_path: Path, small_disk: Path) -> None:
    archive = write_tar(tmp_path / "a.tar.gz", "file", bytes(1 << 20))
    with pytest.raises(StorageError, match="disk is full"):
        unpack(archive, small_disk / "out")


class _BreaksOff(socketserver.StreamRequestHandler):
    """Announces 1000 bytes and sends 10."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")


@pytest.fixture
def broken_server() -> Iterator[str]:
    with socketserver.TCPServer(("127.0.0.1", 0), _BreaksOff) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/a.tar.gz"
        server.shutdown()


def test_interrupted_download(tmp_path: Path, broken_server: str) -> None:
    with pytest.raises(DataError, match=r"transfer broke off.*or name its path"):
        download(broken_server, tmp_path / "a", advice="name its path.")


def test_download_without_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be fetched .*or name its path"):
        download("http://127.0.0.1:9/a.tar.gz", tmp_path / "a", advice="name its path.")


def test_download_to_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 20))
    with pytest.raises(StorageError, match="disk is full"):
        download(large.as_uri(), small_disk / "a", advice="")


def test_content_digest_hangs_on_names_and_contents_only(tmp_path: Path) -> None:
    digests = []
    for folder, names in (("x", "ab"), ("y", "ba"), ("z", "ac")):
        (tmp_path / folder).mkdir()
        files = [tmp_path / folder / name for name in names]
        for path in files:
            path.write_text("same")
        digests.append(content_sha256(tmp_path / folder, files))
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "x" / "a").write_text("other")
    assert content_sha256(tmp_path / "x", (tmp_path / "x").iterdir()) != digests[0]
