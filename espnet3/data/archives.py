"""Fetching and unpacking what a data set is made from, trusting nothing of it."""

from __future__ import annotations

import hashlib
import http.client
import logging
import lzma
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet3.utils.errors import DataError, StorageError, storage_errors

logger = logging.getLogger(__name__)


def download(url: str, destination: Path, *, advice: str, timeout_s: float = 30.0) -> None:
    """Fetch ``url`` into the file ``destination``, whole.

    Args:
        url: what to fetch.
        destination: a file in a temporary folder; a failure leaves nothing of use in it.
        advice: how to do without the network, the end of the message.
        timeout_s: how long the other side may be silent.

    Raises:
        DataError: without network, for a refusal, or when the transfer broke off.
        StorageError: when the disk is full or the folder cannot be written.
    """
    logger.info("Fetching %s", url)
    try:
        with storage_errors(destination), urllib.request.urlopen(url, timeout=timeout_s) as answer:
            announced = answer.headers.get("Content-Length")
            with destination.open("wb") as stream:
                shutil.copyfileobj(answer, stream)
        received = destination.stat().st_size
        if announced is not None and received != int(announced):
            raise http.client.IncompleteRead(b"", int(announced) - received)
    except StorageError:
        raise
    except http.client.IncompleteRead as error:
        raise DataError(f"{url}: the transfer broke off. Try again, or {advice}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url} cannot be fetched ({reason}). Try again, or {advice}") from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive of any compression into ``folder``, refusing what leads out of it.

    Raises:
        DataError: when it is no archive, is truncated, or has a member that would be written
            outside of ``folder``.
        StorageError: when the disk is full or the folder cannot be written.
    """
    try:
        with storage_errors(folder), tarfile.open(archive) as stream:
            if hasattr(tarfile, "data_filter"):
                stream.extractall(folder, filter="data")
            else:
                stream.extractall(folder, members=_plain_members(stream, folder))
    except _REFUSALS as error:
        raise DataError(
            f"{archive} is refused: {error}. Such an archive is broken or hostile; get it anew "
            "from where it is published."
        ) from error
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"There is no archive {archive}.") from error
        raise DataError(
            f"{archive} is not a tar archive, or is truncated ({error}). Get it anew."
        ) from error


class _Refused(Exception):
    """A member of an archive is not taken."""


# Python 3.10.12 and 3.11.4 brought filters; Debian 12 has 3.11.2.
_REFUSALS = (_Refused, *((tarfile.FilterError,) if hasattr(tarfile, "data_filter") else ()))


def _plain_members(stream: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive that has nothing but files and folders below ``folder``."""
    top = folder.resolve()
    for member in stream:
        if not (member.isreg() or member.isdir()):
            raise _Refused(f"'{member.name}' is neither a file nor a folder")
        if not (top / member.name).resolve().is_relative_to(top):
            raise _Refused(f"'{member.name}' would be extracted outside the destination")
        member.mode = 0o755 if member.isdir() else 0o644
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        yield member


def content_sha256(folder: Path, files: Iterable[Path]) -> str:
    """Return one SHA-256 over names and contents of ``files``, in the order of their names.

    It does not depend on how the files were packed, so that every way to get them is held to
    the same value.
    """
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(folder).as_posix() for path in files):
        content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()
