"""The image lock file: written the same way every time, and read with its mistakes named."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.errors import ImageError
from launcher.images.lock import LockEntry, read_lock, update_lock, write_lock
from launcher.images.source import LOCK_FILE

GOLDEN = Path(__file__).parent / "golden"
D = "sha256:" + "d" * 64
I = "sha256:" + "1" * 64  # noqa: E741  an id
CPU = LockEntry(
    repository="localhost:5000/team/cpu",
    digest=D,
    image_id=I,
    sif_sha256="sha256:" + "5" * 64,
    base=f"docker.io/library/python@sha256:{'b' * 64}",
    inputs={"cpu/requirements.lock": "sha256:" + "7" * 64, "Dockerfile": "sha256:" + "6" * 64},
    built="2026-11-23T06:31:12Z",
)
LOCAL = LockEntry(image_id=I)


def test_a_lock_file_is_written_sorted_under_its_comment(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    write_lock(path, {"gpu": LOCAL, "cpu": CPU})
    assert path.read_text() == (GOLDEN / "images.lock.yaml").read_text()
    assert read_lock(path) == {"cpu": CPU, "gpu": LOCAL}


def test_the_committed_lock_file_is_as_it_would_be_written(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    write_lock(path, read_lock(LOCK_FILE))
    assert path.read_text() == LOCK_FILE.read_text()


def test_the_comment_at_the_head_stays_and_the_one_about_emptiness_goes(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    write_lock(path, {})
    path.write_text(f"# Ours, since May.\n{path.read_text()}")
    update_lock(path, "cpu", LOCAL)
    text = path.read_text()
    assert text.startswith("# Ours, since May.\n# Images by digest")
    assert "No image is pinned" not in text
    update_lock(path, "gpu", CPU)
    assert path.read_text().startswith("# Ours, since May.\n")
    assert read_lock(path) == {"cpu": LOCAL, "gpu": CPU}


def test_no_lock_file_pins_nothing(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "none.yaml") == {}
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_lock(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- cpu", ": an image lock file is a mapping of names to images"),
        ("cpu: {", ": the image lock file is not YAML: while parsing"),
        ("cpu: latest", ": cpu: here stand the fields of an image"),
        ("CPU: {}", ": CPU: a name has small letters"),
        ("1: {}", ": 1: a name has small letters"),
        (
            f"cpu: {{image-id: {I}}}",
            ": cpu: there is no field 'image-id'. Did you mean 'image_id'?",
        ),
        ("cpu: {image_id: latest}", ": cpu: image_id: 'latest' is not a digest"),
        ("cpu: {image_id: 12}", ": cpu: image_id: 12 is not a text"),
        ("cpu: {}", ": cpu: nothing in it pins an image"),
        (f"cpu: {{digest: {D}}}", ": cpu: repository: it is missing"),
        ("cpu: {repository: a/b}", ": cpu: digest: it is missing"),
        (f"cpu: {{repository: 'a/b:1', digest: {D}}}", ": cpu: repository: 'a/b:1' is more than"),
        (f"cpu: {{repository: A, digest: {D}}}", ": cpu: repository: 'A' is not the name of an"),
        (f"cpu: {{image_id: {I}, inputs: [a]}}", ": cpu: inputs: this is a mapping"),
        (f"cpu: {{image_id: {I}, inputs: {{a: b}}}}", ": cpu: inputs: a: 'b' is not a digest"),
        (f"cpu: {{image_id: {I}}}\ncpu: {{image_id: {D}}}", "'cpu' stands there twice"),
        (f"cpu: {{image_id: {I}, image_id: {D}}}", "'image_id' stands there twice"),
        ("cpu: !!python/object/apply:os.system ['true']", "not YAML: could not determine"),
    ],
)
def test_a_mistake_is_named_with_file_entry_and_field(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "images.lock.yaml"
    path.write_text(text)
    with pytest.raises(ImageError) as caught:
        read_lock(path)
    assert str(caught.value).startswith(f"{path}:")
    assert problem in str(caught.value)


def test_an_unreadable_lock_file_is_no_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    path.mkdir()
    with pytest.raises(ImageError, match=r"cannot be read: .*directory"):
        read_lock(path)


def test_two_pins_at_once_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    names = [f"image{number}" for number in range(12)]
    threads = [threading.Thread(target=update_lock, args=(path, name, LOCAL)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_lock(path) == dict.fromkeys(names, LOCAL)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_lock_file_that_cannot_be_written_stays_as_it_was(small_disk: Path) -> None:
    path = small_disk / "images.lock.yaml"
    update_lock(path, "cpu", CPU)
    before = path.read_text()
    with (small_disk / "full").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    with pytest.raises(ImageError, match=r"images\.lock\.yaml cannot be written: No space left"):
        update_lock(path, "gpu", CPU)
    assert path.read_text() == before


def test_a_name_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"'\.\./x' cannot be the name of an image"):
        update_lock(tmp_path / "images.lock.yaml", "../x", LOCAL)


@pytest.mark.parametrize(
    "text",
    [
        "? [a]\n: {digest: x}",
        "cpu: {? [x] : 3}",
        "cpu: &x {inputs: *x}",
        "[" * 2000,
        "cpu: {built: 2026-13-45}",
    ],
)
def test_what_yaml_makes_of_odd_files_is_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "images.lock.yaml"
    path.write_text(text)
    with pytest.raises(ImageError, match=re.escape(str(path))):
        read_lock(path)
