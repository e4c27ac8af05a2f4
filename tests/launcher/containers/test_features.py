"""What a runtime cannot give is refused, and who can is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from launcher import registry
from launcher.containers._features import asked_features, check_features
from launcher.containers.base import ContainerRun, Feature, Mount
from launcher.errors import ConfigError

RUN = ContainerRun(
    command=("true",), working_dir=Path("/srv"), mounts=(Mount(*[Path("/srv")] * 2),)
)


@pytest.mark.parametrize(
    ("name", "feature", "message"),
    [
        (
            "charliecloud",
            Feature.GPUS,
            r"charliecloud does not give GPUs .*x\)\. apptainer, docker,",
        ),
        ("none", Feature.MEMORY_LIMIT, "docker and podman do: --container docker"),
        ("enroot", Feature.ANY_PATH, "white space in them"),
        ("apptainer", Feature.SHARED_MEMORY, "a size of shared memory .* --container docker"),
    ],
)
def test_refused(name: str, feature: Feature, message: str) -> None:
    module = registry.load("containers", name)
    with pytest.raises(ConfigError, match=message):
        check_features(module.Implementation(module.Settings()), {feature: "x"})


def test_docker_and_podman_give_everything() -> None:
    for name in ("docker", "podman"):
        module = registry.load("containers", name)
        check_features(module.Implementation(module.Settings()), dict.fromkeys(Feature, "x"))


def test_nothing_is_asked_by_an_ordinary_run() -> None:
    assert asked_features(RUN) == {}


@pytest.mark.parametrize(
    ("change", "feature", "what"),
    [
        ({"gpus": ("0", "2")}, Feature.GPUS, "0, 2"),
        ({"mem_gb": 7.5}, Feature.MEMORY_LIMIT, "7.5 GiB"),
        ({"cpus": 4}, Feature.CPU_LIMIT, "4"),
        ({"num_nodes": 2}, Feature.MULTI_NODE, "2"),
        ({"terminal": True}, Feature.TERMINAL, "yes"),
        ({"mounts": (Mount(Path("/a b"), Path("/a b")),)}, Feature.ANY_PATH, "/a b"),
        ({"mounts": (Mount(Path("/a:b"), Path("/a:b")),)}, Feature.ANY_PATH, "/a:b"),
    ],
)
def test_what_is_asked(change: dict, feature: Feature, what: str) -> None:
    assert asked_features(dataclasses.replace(RUN, **change)) == {feature: what}
