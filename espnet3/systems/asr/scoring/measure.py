"""The stage ``measure``: error rates of what ``infer`` left."""

from __future__ import annotations

import inspect
import json
import logging
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet3.systems.asr.hypotheses import Transcripts, read_speakers, read_texts
from espnet3.systems.asr.inference_config import (
    MetricEntry,
    MetricsConfig,
    checked_metrics_config,
    names_of_test_sets,
)
from espnet3.systems.asr.scoring.metrics import ErrorRate
from espnet3.systems.asr.scoring.score import Score, score
from espnet3.systems.asr.scoring.table import report, summary_table
from espnet3.utils.errors import ConfigError, DataError
from espnet3.utils.files import sha256_of, write_atomically
from espnet3.utils.reuse import Kept, Reuse

if TYPE_CHECKING:
    from espnet3.systems.base.system import BaseSystem

logger = logging.getLogger(__name__)
_LISTED = 10


def run_measure(system: BaseSystem) -> dict[str, dict[str, float]]:
    """Score the hypotheses in ``inference_dir``; write ``metrics.json`` and ``metrics.txt``.

    Returns:
        ``{"<test set>": {"<metric>": rate in percent}}``.

    Raises:
        ConfigError: a metric that does not exist, or settings that it does not take.
        DataError: there are no hypotheses and no inference config to make them by, or
            references and hypotheses are not of the same utterances.
    """
    config = checked_metrics_config(system)
    entries = [(entry, _metric(entry)) for entry in config.metrics]
    _check_names([metric.name for _, metric in entries])
    inference_dir = Path(config.inference_dir or Path(config.exp_dir) / "inference")
    names = _find_hypotheses(system, config, inference_dir)

    texts = {
        inference_dir / name / f"{which}.txt"
        for name in names
        for entry, _ in entries
        for which in (entry.inputs.ref, entry.inputs.hyp)
    }
    key = {
        "metrics": [asdict(entry) for entry in config.metrics],
        "bootstrap_samples": config.bootstrap_samples,
        "confusions": config.confusions,
        "jiwer": version("jiwer"),
        "code": {type(metric).__qualname__: _code_sha256(metric) for _, metric in entries},
        "texts": {
            str(path.relative_to(inference_dir)): sha256_of(path)
            for path in sorted(texts)
            if path.exists()
        },
    }
    json_path, text_path = inference_dir / "metrics.json", inference_dir / "metrics.txt"
    reuse = Reuse(inference_dir / ".measure.done.json", key)
    reasons = reuse.reasons_to_redo()
    if not reasons:
        logger.info("Kept: scored with these settings and texts before: %s", text_path)
        return Kept(_rates(json.loads(json_path.read_text(encoding="utf-8"))))
    logger.info("Scoring %s: %s", ", ".join(names), "; ".join(reasons))
    reuse.forget()
    scores = {
        name: [
            _score(metric, entry, inference_dir / name, config.bootstrap_samples)
            for entry, metric in entries
        ]
        for name in names
    }
    content = {
        "tests": {
            name: {each.metric: each.as_json(config.confusions) for each in of_test}
            for name, of_test in scores.items()
        }
    }
    write_atomically(json_path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_atomically(text_path, report(scores, confusions=config.confusions))
    reuse.mark_done([json_path, text_path])
    logger.info("Error rates, in detail in %s:\n%s", text_path, summary_table(scores))
    return _rates(content)


def _code_sha256(metric: ErrorRate) -> str | None:
    """Return the hash of the module that a metric, perhaps a recipe's own, is written in."""
    source = Path(inspect.getfile(type(metric)))
    return sha256_of(source) if source.is_file() else None


def _metric(entry: MetricEntry) -> ErrorRate:
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    if "_target_" not in entry.metric:
        raise ConfigError(
            "metrics_config: an entry of 'metrics' has no class. Write e.g. "
            "- metric: {_target_: espnet3.systems.asr.scoring.WER}"
        )
    try:
        metric = instantiate(OmegaConf.create(entry.metric), _convert_="all")
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise ConfigError(f"metrics_config: {cause}") from error
        reason = str(cause or error).splitlines()[0]
        raise ConfigError(
            f"metrics_config: the metric {entry.metric['_target_']} cannot be made: {reason}"
        ) from error
    if not isinstance(metric, ErrorRate):
        raise ConfigError(
            f"metrics_config: {entry.metric['_target_']} is no metric; it must be a subclass of "
            "espnet3.systems.asr.scoring.ErrorRate, such as WER or CER."
        )
    return metric


def _check_names(names: list[str]) -> None:
    if not names:
        raise ConfigError(
            "metrics_config: 'metrics' is empty. Write e.g. "
            "metrics: [{metric: {_target_: espnet3.systems.asr.scoring.WER}}]"
        )
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"metrics_config: two metrics are called '{name}'. Give one another name beside "
                "its _target_, e.g. name: WER_lowercase."
            )


def _find_hypotheses(system: BaseSystem, config: MetricsConfig, inference_dir: Path) -> list[str]:
    """Return the names of the test sets, their hypotheses brought up to date if that can be."""
    names = names_of_test_sets(config.dataset.test, "metrics_config")
    if not names and system.inference_config is not None:
        from omegaconf import OmegaConf

        references = OmegaConf.select(system.inference_config, "dataset.test") or []
        names = names_of_test_sets(list(references), "inference_config")
    if not names:
        # A killed infer leaves half a test set under a name with a dot.
        names = sorted(path.parent.name for path in inference_dir.glob("[!.]*/hyp.txt"))
    if system.inference_config is not None:
        # infer keeps what still holds: hypotheses of other settings must not be scored as these.
        system.infer()  # type: ignore[attr-defined]
    missing = [name for name in names if not (inference_dir / name / "hyp.txt").is_file()]
    if missing or not names:
        raise DataError(
            f"There are no hypotheses of {', '.join(missing) or 'any test set'} in "
            f"{inference_dir}. Run the stage infer, or give --inference_config as well."
        )
    return names


def _score(metric: ErrorRate, entry: MetricEntry, folder: Path, bootstrap_samples: int) -> Score:
    references = read_texts(folder / f"{entry.inputs.ref}.txt")
    hypotheses = read_texts(folder / f"{entry.inputs.hyp}.txt")
    without_hypothesis = [utt_id for utt_id in references if utt_id not in hypotheses]
    without_reference = [utt_id for utt_id in hypotheses if utt_id not in references]
    if without_hypothesis or without_reference or not references:
        problems = [
            f"{len(ids)} without a {what}: {', '.join(ids[:_LISTED])}"
            + (" …" if len(ids) > _LISTED else "")
            for what, ids in (("hypothesis", without_hypothesis), ("reference", without_reference))
            if ids
        ]
        raise DataError(
            f"References and hypotheses in {folder} are not of the same utterances: "
            f"{'; '.join(problems) or 'both are empty'}. Remove the folder and run infer again."
        )
    speakers = read_speakers(folder / "hyp.jsonl")
    return score(
        metric,
        Transcripts(references, hypotheses, speakers),
        bootstrap_samples=bootstrap_samples,
    )


def _rates(content: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: {metric: figures["rate_percent"] for metric, figures in of_test.items()}
        for name, of_test in content["tests"].items()
    }
