"""The stage ``infer``: every test set recognised, with the time it took.

The **real-time factor** (RTF) is the wall time of decoding over the duration of the audio.
Decoding is all that grows with the audio: reading it, features, network, search, and text.
Starting up (imports, loading the checkpoint and the manifests) is left out; the log also gives a
figure that counts it. Neither counts a training that this stage had to start.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.systems.asr.checkpoints import Recogniser, best_checkpoint, load_recogniser
from espnet3.systems.asr.hypotheses import write_recognised
from espnet3.systems.asr.inference_config import (
    InferenceConfig,
    checked_inference_config,
    names_of_test_sets,
)
from espnet3.utils.errors import CheckpointError, DataError
from espnet3.utils.files import sha256_of
from espnet3.utils.reuse import Kept, Reuse

if TYPE_CHECKING:
    from lhotse import CutSet

    from espnet3.systems.base.system import BaseSystem

logger = logging.getLogger(__name__)


def run_infer(system: BaseSystem) -> dict[str, dict[str, float]]:
    """Recognise the test sets of ``system.inference_config``.

    Returns:
        for each test set its ``WER`` in percent, of the texts as they are, and its ``RTF``.

    Raises:
        ConfigError: a setting that makes no sense.
        CheckpointError: there is no such model, and none can be trained from what was given.
        DataError: a test set is empty, or its audio cannot be read.
    """
    config = checked_inference_config(system)
    if not config.dataset.test:
        raise DataError(
            "The inference config names no test set. Give it a section such as "
            "dataset: {test: [{name: test, data_src_args: {split: test}}]}."
        )
    named = config.model.checkpoint
    checkpoint = find_checkpoint(
        system, Path(config.recipe_dir) / named if named else None, exp_dir=Path(config.exp_dir)
    )
    begin = time.perf_counter()
    test_sets = _load_test_sets(system, config)
    key = {
        "decoding": asdict(config.decoding),
        "batch_size": config.batch_size,
        "max_batch_duration_s": config.max_batch_duration_s,
        "device": config.model.device,
        "num_threads": config.model.num_threads,
        "checkpoint": sha256_of(checkpoint),
    }
    figures: dict[str, dict[str, float]] = {}
    recogniser: Recogniser | None = None
    decoded_s = 0.0
    for name, (cuts, data_sha) in test_sets.items():
        folder = Path(config.inference_dir) / name
        reuse = Reuse(folder / ".infer.done.json", {**key, "data": data_sha})
        reasons = reuse.reasons_to_redo()
        if not reasons:
            logger.info("Kept: decoded with these settings, model and data before: %s", folder)
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        else:
            logger.info("Decoding '%s' (%s) with %s", name, "; ".join(reasons), checkpoint)
            recogniser = recogniser or _load(checkpoint, config)
            summary = _decode(recogniser, name, cuts, folder, reuse, config)
            decoded_s += summary["audio_s"]
        figures[name] = {"WER": summary["WER"], "RTF": summary["RTF"]}
    if decoded_s:
        stage_rtf = (time.perf_counter() - begin) / decoded_s
        logger.info("RTF of the stage with its start-up: %.5f", stage_rtf)
    return figures if recogniser else Kept(figures)


def find_checkpoint(system: BaseSystem, named: Path | None, *, exp_dir: Path) -> Path:
    """Return the checkpoint to use, training it first where there is none yet.

    Args:
        system: gives the stage ``train``.
        named: the one that the config names; ``None`` takes the best of ``exp_dir``.
        exp_dir: the experiment's folder.

    Raises:
        CheckpointError: the named one is not there, or nothing can be trained.
    """
    if named is not None:
        if not named.is_file():
            raise CheckpointError(
                f"The config names the checkpoint {named}, which does not exist. "
                f"{_what_exists(exp_dir)}, or write null for the best of the training."
            )
        return named
    try:
        return best_checkpoint(exp_dir)
    except CheckpointError as error:
        if system.training_config is None:
            raise CheckpointError(
                f"{error} With --training_config this stage trains the model itself."
            ) from error
        if system.exp_dir is None or system.exp_dir.resolve() != exp_dir.resolve():
            raise CheckpointError(
                f"{error} It is not trained here, since the training config's exp_dir is another: "
                f"{system.exp_dir}."
            ) from error
        logger.info("There is no trained model yet, so train runs first: %s", exp_dir)
    system.train()  # type: ignore[attr-defined]
    return best_checkpoint(exp_dir)


def _what_exists(exp_dir: Path) -> str:
    found = sorted(exp_dir.rglob("*.ckpt")) if exp_dir.is_dir() else []
    if not found:
        return f"There are none in {exp_dir} either: name one of another folder"
    names = ", ".join(str(path.relative_to(exp_dir)) for path in found)
    return f"In {exp_dir} there are {names}: name one of these"


def _load_test_sets(system: BaseSystem, config: InferenceConfig) -> dict[str, tuple[CutSet, str]]:
    """Return each test set's cuts and the hash of its data, made first where it is missing."""
    from espnet3.data import check_cuts, create_dataset, load_dataset
    from espnet3.data.fingerprint import fingerprint
    from espnet3.systems.asr.splits import load_or_create

    def create() -> None:
        assert system.inference_config is not None
        if system.training_config is not None:
            system.create_dataset()
        # The test sets may be of other recipes than those that training names.
        create_dataset(system.inference_config)

    def load() -> list[CutSet]:
        places = {"recipe_dir": Path(config.recipe_dir), "data_dir": Path(config.data_dir)}
        splits = [load_dataset(reference, **places).cuts() for reference in config.dataset.test]
        for name, cuts in zip(names, splits, strict=True):
            check_cuts(cuts, name=name)
        return splits

    names = names_of_test_sets(config.dataset.test, "inference_config")
    splits = load_or_create(load, create)
    return {name: (cuts, fingerprint(cuts)) for name, cuts in zip(names, splits, strict=True)}


def _load(checkpoint: Path, config: InferenceConfig) -> Recogniser:
    import torch

    from espnet3.systems.asr.decoding.recognise import choose_device
    from espnet3.systems.asr.training.allocator import keep_freed_memory

    if config.model.num_threads:
        torch.set_num_threads(config.model.num_threads)
    keep_freed_memory()  # a third faster on a CPU: batches take the same memory again and again
    return load_recogniser(checkpoint, device=str(choose_device(config.model.device)))


def _decode(
    recogniser: Recogniser,
    name: str,
    cuts: CutSet,
    folder: Path,
    reuse: Reuse,
    config: InferenceConfig,
) -> dict[str, Any]:
    """Decode one test set and write its files; return its summary."""
    import torch

    from espnet3.data import check_cuts
    from espnet3.systems.asr.decoding.recognise import batches_by_length, recognise
    from espnet3.systems.asr.scoring.alignment import error_counts

    rate_hz = recogniser.log_mel.sample_rate_hz
    check_cuts(cuts, name=name, audio="none", sample_rate_hz=rate_hz)
    order = [cut.id for cut in cuts]
    batches = batches_by_length(
        list(cuts),
        batch_size=config.batch_size,
        max_batch_duration_s=config.max_batch_duration_s,
    )
    begin = time.perf_counter()
    recognised = {
        each.utt_id: each
        for batch in batches
        for each in recognise(recogniser, batch, config.decoding)
    }
    elapsed_s = time.perf_counter() - begin
    audio_s = sum(cut.duration for cut in cuts)
    counts = error_counts(
        [each.reference.split() for each in recognised.values()],
        [each.text.split() for each in recognised.values()],
    )
    summary = {
        "WER": round(counts.rate_percent, 3),
        "RTF": round(elapsed_s / audio_s, 5),
        "elapsed_s": round(elapsed_s, 4),
        "audio_s": round(audio_s, 3),
        "utterances": len(order),
        "device": str(next(recogniser.model.parameters()).device),
        "num_threads": torch.get_num_threads(),
        "made_from": reuse.key,
    }
    reuse.forget()
    paths = write_recognised(folder, (recognised[utt_id] for utt_id in order), summary)
    reuse.mark_done(paths)
    logger.info(
        "%s: %d utterances, %.1f s of audio in %.2f s, RTF %.4f, WER %.2f %%: %s",
        name,
        len(order),
        audio_s,
        elapsed_s,
        summary["RTF"],
        summary["WER"],
        folder / "hyp.txt",
    )
    return summary
