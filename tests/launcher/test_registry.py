"""Clusters and containers by name, a third party's among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import registry
from launcher.config import load_config
from launcher.errors import UsageError

THIRD_PARTY = """\
from dataclasses import dataclass


@dataclass
class Settings:
    name: str = "pigeon"
    loft: str = "roof"


Implementation = object
"""


def test_each_has_settings_and_a_file_of_its_own() -> None:
    conf = Path(registry.__file__).parent / "conf"
    for kind in ("clusters", "containers"):
        names = registry.available(kind)
        files = (conf / kind.removesuffix("s")).glob("*.yaml")
        assert names == sorted(file.stem for file in files)
        for name in names:
            assert registry.load(kind, name).Settings().name == name


def test_an_unknown_one_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no cluster 'slrum'\. Did you mean 'slurm'\? Use --cl"):
        registry.load("clusters", "slrum")


def test_a_third_partys_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pigeon_post.py").write_text(THIRD_PARTY)
    info = tmp_path / "pigeon_post-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[launcher.clusters]\npigeon = pigeon_post\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "pigeon" in registry.available("clusters")
    choices = {"cluster": "pigeon", "container": "none"}
    config = load_config(choices, ["cluster.loft=barn"], recipe_dir=tmp_path)
    assert (config.cluster.name, config.cluster.loft) == ("pigeon", "barn")
