"""The stage ``pack_model``, and recognisers loaded from what it packs.

An archive holds all that recognition needs and nothing that it does not: no optimizer state, no
paths of the machine it was trained on. It is a gzipped tar without times and owners, so the same
model packed twice gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from espnet3.systems.asr.checkpoints import Recogniser, load_recogniser, recognition_weights
from espnet3.systems.asr.inference import find_checkpoint
from espnet3.systems.asr.inference_config import PackConfig, checked_publication_config
from espnet3.systems.asr.model_card import Card, model_card
from espnet3.systems.asr.training_config import TrainingConfig, checked_training_config
from espnet3.utils.errors import CheckpointError
from espnet3.utils.files import atomic_path, sha256_of
from espnet3.utils.masking import mask_mapping
from espnet3.utils.metadata import git_state
from espnet3.utils.reuse import Kept, Reuse

if TYPE_CHECKING:
    from espnet3.systems.base.system import BaseSystem

logger = logging.getLogger(__name__)

_CHECKPOINT = "model.ckpt"
_MANIFEST = "MANIFEST.json"
# Where things lay on the training machine means nothing elsewhere.
_PATHS = ("recipe_dir", "data_dir", "exp_dir", "stats_dir")


def run_pack_model(system: BaseSystem) -> dict[str, Any]:
    """Pack the model of ``system.training_config`` into one file, training it first if need be.

    Returns:
        the archive's size as ``size_mb``.

    Raises:
        CheckpointError: the checkpoint is not there or cannot be read.
    """
    config = checked_training_config(system)
    settings = checked_publication_config(system).pack_model
    exp_dir = Path(config.exp_dir)
    named = Path(config.recipe_dir) / settings.checkpoint if settings.checkpoint else None
    checkpoint = find_checkpoint(system, named, exp_dir=exp_dir)
    default = exp_dir / f"{config.exp_tag or exp_dir.name}.tar.gz"
    archive = Path(config.recipe_dir) / settings.archive if settings.archive else default
    checkpoint_sha = sha256_of(checkpoint)
    metrics = _metrics_of(checkpoint_sha, exp_dir)
    git = git_state(Path(__file__).parent)
    key = {
        "checkpoint": checkpoint_sha,
        "publication": asdict(settings),
        "metrics": {path.parent.name: sha256_of(path) for path in metrics},
        "commit": git and git["commit"],
    }
    reuse = Reuse(archive.with_name(f".{archive.name}.done.json"), key)
    reasons = reuse.reasons_to_redo()
    if not reasons:
        logger.info("Kept: the archive, the same model was packed before: %s", archive)
        return Kept(_figures(archive))
    logger.info("Packing (%s) the checkpoint %s", "; ".join(reasons), checkpoint)
    reuse.forget()
    files = _model_files(checkpoint, config, settings, metrics, git)
    with atomic_path(archive) as temporary:
        temporary.write_bytes(_packed(files))
    reuse.mark_done([archive])
    logger.info("Packed %d files: %s (%.2f MB)", len(files), archive, _figures(archive)["size_mb"])
    return _figures(archive)


def load_packed_recogniser(archive: Path, device: str = "cpu") -> Recogniser:
    """Return the recogniser in an archive of ``pack_model``, ready to decode on ``device``.

    Raises:
        CheckpointError: it is no such archive, or its content is damaged or not what its
            manifest says.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        return load_recogniser(Path(folder) / _CHECKPOINT, device)


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Write the files of an archive into ``folder``; return their paths.

    Only regular files that the manifest names, with the SHA-256 it gives them, below ``folder``:
    links, devices and paths that lead out of it are refused before anything is written.

    Raises:
        CheckpointError: it is no such archive, or holds something else.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            contents = {member.name: _content(tar, member) for member in tar}
        manifest = json.loads(contents.pop(_MANIFEST))["files"]
    except FileNotFoundError:
        raise CheckpointError(
            f"There is no archive {archive}. Run the stage pack_model, or check the path."
        ) from None
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{archive} is not a whole archive of pack_model ({error}). Fetch or pack it again."
        ) from error
    for name in sorted({*contents, *manifest}):
        found = hashlib.sha256(contents[name]).hexdigest() if name in contents else None
        if found != manifest.get(name):
            raise CheckpointError(
                f"{archive}: {name} is not what {_MANIFEST} says. Fetch or pack it again."
            )
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return paths


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    path = PurePosixPath(member.name)
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None or path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise ValueError(f"'{member.name}' is no plain file below its folder")
    return stream.read()


def _metrics_of(checkpoint_sha: str, exp_dir: Path) -> list[Path]:
    """Return each ``metrics.json`` below ``exp_dir`` that scores this very checkpoint."""
    found = []
    for path in sorted(exp_dir.glob("[!.]*/metrics.json")):
        tests = json.loads(path.read_text(encoding="utf-8"))["tests"]
        if all(_decoded_with(path.parent / name) == checkpoint_sha for name in tests):
            found.append(path)
        else:
            logger.warning(
                "Left out of the archive: %s scores another checkpoint than the one packed. Run "
                "infer and measure again to have its figures in it.",
                path,
            )
    return found


def _decoded_with(folder: Path) -> str | None:
    """Return the SHA-256 of the checkpoint that a test set was decoded with, if it is known."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return str(summary["made_from"]["checkpoint"])
    except (OSError, ValueError, KeyError):
        return None


def _model_files(
    checkpoint: Path,
    config: TrainingConfig,
    settings: PackConfig,
    metrics: list[Path],
    git: dict[str, Any] | None,
) -> dict[str, bytes]:
    """Return the archive's content by file name."""
    import torch
    import yaml

    recogniser = load_recogniser(checkpoint)
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    portable = _portable(content["recogniser"]["config"])
    tokenizer: bytes = content["recogniser"]["tokenizer"]
    weights = recognition_weights(content["state_dict"])
    buffer = io.BytesIO()
    torch.save(
        {
            "recogniser": {"config": portable, "tokenizer": tokenizer},
            "state_dict": {f"model.{name}": weight.clone() for name, weight in weights.items()},
        },
        buffer,
    )
    statistics = recogniser.model.normalisation
    files = {
        _CHECKPOINT: buffer.getvalue(),
        "config.yaml": yaml.safe_dump(portable, sort_keys=False, allow_unicode=True).encode(),
        "tokenizer.model": tokenizer,
        "tokens.txt": "".join(f"{piece}\n" for piece in recogniser.tokenizer.pieces).encode(),
        "feature_stats.json": _json(
            {"mean": statistics.mean.tolist(), "std": statistics.std.tolist()}
        ),
    }
    for path in metrics:
        for each in (path, path.with_suffix(".txt")):
            if each.exists():
                files[f"metrics/{path.parent.name}/{each.name}"] = each.read_bytes()
    card = Card(
        title=settings.title or config.exp_tag or Path(config.exp_dir).name,
        settings=settings,
        config=recogniser.config,
        parameters=sum(weight.numel() for weight in recogniser.model.parameters()),
        vocab_size=recogniser.tokenizer.vocab_size,
        checkpoint_sha256=hashlib.sha256(files[_CHECKPOINT]).hexdigest(),
        metrics={
            path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in metrics
        },
        git=git,
    )
    files["README.md"] = model_card(card).encode()
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    return {**files, _MANIFEST: _json({"schema": 1, "files": hashes})}


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Return a training config without paths of this machine and without secrets."""
    portable: dict[str, Any] = mask_mapping(config)
    portable.update(dict.fromkeys(_PATHS, ""), create_dataset={})
    portable["tokenizer"] = {**portable["tokenizer"], "save_path": ""}
    return portable


def _packed(files: dict[str, bytes]) -> bytes:
    """Return a gzipped tar of ``files``, the same bytes for the same content."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _figures(archive: Path) -> dict[str, Any]:
    return {"size_mb": round(archive.stat().st_size / 1e6, 3)}
