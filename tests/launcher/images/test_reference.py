"""Names of images: what is a digest, and what is a tag."""

from __future__ import annotations

import pytest

from launcher.errors import ImageError
from launcher.images.reference import (
    Reference,
    is_digest,
    is_loopback,
    parse_reference,
    same_repository,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("python", Reference("python")),
        ("python:3.11-slim", Reference("python", tag="3.11-slim")),
        (f"python@{DIGEST}", Reference("python", digest=DIGEST)),
        (f"a.b/c:1@{DIGEST}", Reference("a.b/c", tag="1", digest=DIGEST)),
        ("localhost:5000/x/y", Reference("localhost:5000/x/y")),
        ("localhost:5000/x/y:z", Reference("localhost:5000/x/y", tag="z")),
        ("[::1]:5000/x", Reference("[::1]:5000/x")),
    ],
)
def test_references_are_taken_apart(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Python", "in small letters"),
        ("a//b", "in small letters"),
        ("a b", "in small letters"),
        ("-rf", "in small letters"),
        ("--privileged", "in small letters"),
        ("x:", "is no tag"),
        ("x:a/b:", "is no tag"),
        ("x:$(id)", "is no tag"),
        ("x@sha256:abc", "'sha256:abc' is not a digest"),
        (f"x@{DIGEST.upper()}", "is not a digest"),
        (f"x@{DIGEST}0", "is not a digest"),
        ("x@md5:" + "0" * 64, "is not a digest"),
        (f"x@{DIGEST}\n", "is not a digest"),
    ],
)
def test_what_can_be_no_image_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_reference(text)
    assert problem in str(caught.value)
    assert repr(text)[1:-1] in repr(str(caught.value))


def test_only_a_whole_digest_is_one() -> None:
    assert is_digest(DIGEST)
    assert not is_digest(DIGEST[:-1])
    assert not is_digest(DIGEST + "\n")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("python", "docker.io/library/python", True),
        ("team/cpu", "index.docker.io/team/cpu", True),
        ("localhost:5000/a", "localhost:5000/a", True),
        ("localhost:5000/a", "localhost:5001/a", False),
        ("python", "quay.io/library/python", False),
    ],
)
def test_docker_hub_has_several_names(one: str, other: str, same: bool) -> None:
    assert same_repository(one, other) is same


@pytest.mark.parametrize(
    ("repository", "loopback"),
    [
        ("localhost:5000/a", True),
        ("localhost/a", True),
        ("127.0.0.1:5000/a", True),
        ("[::1]:5000/a", True),
        ("localhost.evil.example/a", False),
        ("127.0.0.1.example/a", False),
        ("localhost", False),
        ("python", False),
    ],
)
def test_loopback_is_this_machine_alone(repository: str, loopback: bool) -> None:
    assert is_loopback(repository) is loopback
