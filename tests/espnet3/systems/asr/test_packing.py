"""The packed model: what is in it, that it decodes, and archives that are not to be trusted."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from espnet3.systems.asr.checkpoints import load_recogniser
from espnet3.systems.asr.data.datasets import load_split
from espnet3.systems.asr.decoding.recognise import recognise
from espnet3.systems.asr.inference_config import DecodingConfig
from espnet3.systems.asr.packing import load_packed_recogniser, unpack
from espnet3.systems.asr.system import ASRSystem
from espnet3.systems.asr.training_config import checked_training_config
from espnet3.utils.errors import CheckpointError


def archive_of(configs):
    return Path(configs["training"]["exp_dir"]) / "small.tar.gz"


def test_the_unpacked_model_decodes_like_the_checkpoint(small_system, small_configs, tmp_path):
    system = small_system("training", "inference", "metrics")
    system.measure()
    system.pack_model()
    archive = archive_of(small_configs)
    moved = tmp_path / "elsewhere.tar.gz"
    archive.rename(moved)

    packed = load_packed_recogniser(moved)
    cuts = load_split(checked_training_config(system), "train", create=system.create_dataset).cuts
    found = recognise(packed, list(cuts), DecodingConfig(beam_size=4))
    hypotheses = Path(small_configs["inference"]["inference_dir"]) / "test" / "hyp.txt"
    assert [f"{u.utt_id} {u.text}".rstrip() for u in found] == hypotheses.read_text().splitlines()
    assert any(u.text for u in found)


def test_what_is_in_it(small_system, small_configs, tmp_path):
    small_system("training", "inference", "metrics").measure()
    inference_dir = Path(small_configs["inference"]["inference_dir"])
    # What a killed process leaves is not packed.
    shutil.copytree(inference_dir, inference_dir.with_name(".inference.1a2b3c4d.partial"))
    system = small_system("training")
    system.pack_model()
    paths = unpack(archive_of(small_configs), tmp_path / "x")
    names = {str(path.relative_to(tmp_path / "x")) for path in paths}
    assert names == {
        "README.md",
        "config.yaml",
        "feature_stats.json",
        "metrics/inference/metrics.json",
        "metrics/inference/metrics.txt",
        "model.ckpt",
        "tokenizer.model",
        "tokens.txt",
    }
    card = (tmp_path / "x" / "README.md").read_text()
    rate = json.loads((tmp_path / "x" / "metrics/inference/metrics.json").read_text())
    rate = rate["tests"]["test"]["WER"]["rate_percent"]
    assert f"| test | WER | {rate:.2f} |" in card
    assert "the recipe itself (split: train)" in card
    content = torch.load(tmp_path / "x" / "model.ckpt", weights_only=True)
    assert set(content) == {"recogniser", "state_dict"}
    recipe = small_configs["training"]["recipe_dir"].encode()
    for path in (tmp_path / "x").rglob("*"):
        assert not path.is_file() or recipe not in path.read_bytes()


def test_figures_of_another_checkpoint_are_left_out(small_system, small_configs, caplog):
    small_system("training", "inference", "metrics").measure()
    first = next(Path(small_configs["training"]["exp_dir"]).rglob("*.ckpt"))
    content = torch.load(first, weights_only=True)
    content["state_dict"]["model.output.bias"] += 1
    torch.save(content, first)
    small_system("training").pack_model()
    assert "scores another checkpoint" in caplog.text
    with tarfile.open(archive_of(small_configs)) as tar:
        assert not [name for name in tar.getnames() if name.startswith("metrics")]
        assert "Not measured" in tar.extractfile("README.md").read().decode()


def test_it_trains_first_and_needs_only_the_training_config(small_system, small_configs):
    system = small_system("training")
    figures = system.pack_model()
    assert system.calls == ["train"]
    size_bytes = archive_of(small_configs).stat().st_size
    assert figures["size_mb"] == pytest.approx(size_bytes / 1e6, abs=1e-3)
    checkpoint = next(Path(small_configs["training"]["exp_dir"]).rglob("*.ckpt"))
    kept = load_recogniser(checkpoint).model.state_dict()
    packed = load_packed_recogniser(archive_of(small_configs)).model.state_dict()
    assert all(torch.equal(packed[name], kept[name]) for name in kept)


def test_the_same_model_gives_the_same_bytes(small_system, small_configs):
    small_system("training").pack_model()
    first = archive_of(small_configs).read_bytes()
    archive_of(small_configs).unlink()
    small_system("training").pack_model()
    assert archive_of(small_configs).read_bytes() == first


def test_unchanged_is_kept_and_a_new_card_packs_again(small_system, small_configs, caplog):
    small_system("training").pack_model()
    caplog.set_level("INFO")
    small_system("training").pack_model()
    assert "Kept:" in caplog.text
    caplog.clear()
    system = ASRSystem(
        training_config=OmegaConf.create(small_configs["training"]),
        publication_config=OmegaConf.create(
            {"pack_model": {"title": "Digits", "license": "CC-BY-4.0", "authors": ["A. B."]}}
        ),
    )
    system.pack_model()
    assert "publication.title" in caplog.text
    with tarfile.open(archive_of(small_configs)) as tar:
        card = tar.extractfile("README.md").read().decode()
    assert "# Digits" in card
    assert "license: CC-BY-4.0" in card
    assert "Authors: A. B." in card


def make_archive(path, members, manifest=None):
    """Write an archive of ``{name: bytes or TarInfo}``, its manifest true unless one is given."""
    hashes = {n: hashlib.sha256(c).hexdigest() for n, c in members.items() if isinstance(c, bytes)}
    whole = {**members, "MANIFEST.json": json.dumps({"files": manifest or hashes}).encode()}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in whole.items():
            if isinstance(content, bytes):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                tar.addfile(content)
    return path


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type = tarfile.SYMTYPE
    member.linkname = target
    return member


@pytest.mark.parametrize(
    "members",
    [
        {"../escaped": b"x"},
        {"/tmp/escaped": b"x"},
        {"a/../../escaped": b"x"},
        {"way": link("way", "/"), "way/escaped": b"x"},
        {"model.ckpt": link("model.ckpt", "/etc/hostname")},
    ],
)
def test_nothing_is_written_outside_the_folder(tmp_path, members):
    folder = tmp_path / "inside"
    folder.mkdir()
    archive = make_archive(tmp_path / "bad.tar.gz", members)
    with pytest.raises(CheckpointError, match="no plain file below"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar.gz", "inside"]


@pytest.mark.parametrize(
    ("members", "manifest"),
    [
        ({"a": b"altered"}, {"a": hashlib.sha256(b"original").hexdigest()}),
        ({"a": b"1", "added": b"2"}, {"a": hashlib.sha256(b"1").hexdigest()}),
        ({"a": b"1"}, {"a": hashlib.sha256(b"1").hexdigest(), "gone": "0" * 64}),
    ],
)
def test_content_that_the_manifest_does_not_vouch_for(tmp_path, members, manifest):
    archive = make_archive(tmp_path / "bad.tar.gz", members, manifest)
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_archive(small_system, small_configs):
    small_system("training").pack_model()
    archive = archive_of(small_configs)
    archive.write_bytes(archive.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="not a whole archive"):
        load_packed_recogniser(archive)


def test_no_archive(tmp_path):
    with pytest.raises(CheckpointError, match="There is no archive"):
        load_packed_recogniser(tmp_path / "none.tar.gz")
