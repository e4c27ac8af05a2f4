"""Settings: defaults, the recipe's own, the command line's, and what each mistake gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.config import load_config
from launcher.errors import ConfigError, UsageError
from launcher.settings.resources import Resources
from launcher.settings.stage import stage_config


def load(*overrides: str, recipe_dir: Path = Path("/nonexistent"), **choices: str):
    return load_config(choices, overrides, recipe_dir=recipe_dir)


def test_defaults_are_typed() -> None:
    config = load()
    assert (config.cluster.name, config.container.name) == ("local", "none")
    assert config.stop_grace_s == 10.0
    assert config.launches_dir is None
    assert config.env == {}


def test_command_line_beats_recipe_beats_defaults(hostile_path: Path) -> None:
    (hostile_path / "conf").mkdir()
    (hostile_path / "conf" / "launch.yaml").write_text("stop_grace_s: 7\nenv: {A: one}\n")
    config = load("env.B='two, three'", "cluster.poll_s=1", recipe_dir=hostile_path)
    assert config.stop_grace_s == 7.0
    assert config.env == {"A": "one", "B": "two, three"}
    assert config.cluster.poll_s == 1.0
    assert load("stop_grace_s=8", recipe_dir=hostile_path).stop_grace_s == 8.0


def test_misspelt_key_in_the_recipes_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    path = tmp_path / "conf" / "launch.yaml"
    path.write_text("cluster: {pol_s: 1}\n")
    with pytest.raises(ConfigError, match=r"launch\.yaml: .*pol_s.* Did you mean 'poll_s'"):
        load(recipe_dir=tmp_path)
    path.write_text("- not\n- a mapping\n")
    with pytest.raises(ConfigError, match=r"launch\.yaml"):
        load(recipe_dir=tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.pol_s=1", r"no setting 'cluster\.pol_s'\. Did you mean 'cluster\.poll_s'"),
        ("stop_grace_s=soon", r"'stop_grace_s=soon': stop_grace_s is 'soon'"),
        ("env=3", r"'env=3'"),
        ("stop_grace_s=1,2", "exactly one value"),
        ("~env", "exactly one value"),
        ("x=[1", "is not a setting"),
    ],
)
def test_mistakes_on_the_command_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(override)


def test_cluster_and_container_are_chosen_either_way() -> None:
    assert load("cluster=local", container="none").cluster.name == "local"
    for choice in ({"overrides": ("cluster=mars",)}, {"cluster": "mars"}):
        with pytest.raises(UsageError, match="there is no cluster 'mars'"):
            load(*choice.pop("overrides", ()), **choice)


@pytest.mark.parametrize(
    "setting",
    [
        *("cluster.poll_s=-1", "cluster.poll_s=0", "cluster.poll_s=nan", "cluster.poll_s=inf"),
        *("stop_grace_s=-1", "stop_grace_s=nan", "stop_grace_s=1e400", "probe_timeout_s=0"),
    ],
)
def test_numbers_out_of_range_are_refused_with_the_range(setting: str) -> None:
    name, _, value = setting.partition("=")
    shown = value.replace("1e400", "inf")
    with pytest.raises(ConfigError, match=rf"^{name} is {shown}; it is to be a number from .* to"):
        load(setting)


@pytest.mark.parametrize(
    "setting", ["stop_grace_s=0", "stop_grace_s=86400", "cluster.poll_s=0.001"]
)
def test_the_bounds_of_a_range_belong_to_it(setting: str) -> None:
    load(setting)


def test_a_secret_in_env_is_refused_and_said_how_else_it_reaches_the_stages(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"env\.API_KEY looks like a secret.*export API_KEY"
    ) as told:
        load("+env.API_KEY=launchsecret99")
    assert "launchsecret99" not in str(told.value)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "launch.yaml").write_text("env: {HF_TOKEN: launchsecret99}\n")
    with pytest.raises(ConfigError, match=r"env\.HF_TOKEN looks like a secret"):
        load(recipe_dir=tmp_path)
    assert load("+env.HF_TOKEN=''").env == {"HF_TOKEN": ""}  # how one is taken away


def test_what_stages_ask_of_one_cluster_alone(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "launch.yaml").write_text(
        "resources: {mem_gb: 4}\n"
        "stages: {train: {cpus_per_task: 2, mem_gb: 8}}\n"
        "clusters:\n"
        "  slurm:\n"
        "    qos: night\n"
        "    resources: {timeout_min: 30}\n"
        "    stages: {train: {partition: gpu, mem_gb: 64}}\n"
    )
    on_slurm = load(cluster="slurm", recipe_dir=tmp_path)
    train, score = (stage_config(on_slurm, stage) for stage in ("train", "score"))
    assert (train.cluster.partition, train.cluster.qos) == ("gpu", "night")
    asked = Resources(cpus_per_task=2, mem_gb=64, timeout_min=30)
    assert (train.resources, score.cluster.partition) == (asked, None)
    assert score.resources == Resources(mem_gb=4, timeout_min=30)
    here = stage_config(load(cluster="local", recipe_dir=tmp_path), "train")
    assert here.resources == Resources(cpus_per_task=2, mem_gb=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_steps: 3}", "launch.yaml: the launcher has no setting 'trainer'"),
        ("resource: {mem_gb: 4}", "no setting 'resource'. Did you mean 'resources'?"),
        ("3: 4", "no setting '3'"),
        ("stages: 3", "stages is to be a mapping, such as"),
        (
            "resources: {cpus_per_task: two}",
            "resources.cpus_per_task is 'two'; it is to be a whole",
        ),
        ("resources: {gpus: 1}", "'resources.gpus'. Did you mean 'gpus_per_node'?"),
        ("stages: {train: {mem_gb: lots}}", "stages.train.mem_gb is 'lots'; it is to be a number"),
        ("a: 1\nb: [1,\n", "launch.yaml:3: expected "),
        ("a:\n\tb: 3", "launch.yaml:2: found character"),
        ("a: &x [*x]", "nested without end"),
        ("[" * 2000, "nested without end, or too deeply"),
        ("cluster: null", "cluster is to be the name of one"),
        ("cluster: {name: slurm}", "cluster.name cannot be set. Choose by `cluster: NAME`"),
        ("clusters: 3", "clusters is to be a mapping, not 3"),
        ("clusters: []", "clusters is to be a mapping"),
        ("clusters: {slurm: 4}", "clusters.slurm is to be a mapping, not 4"),
        ("env: null", "env cannot be null"),
        ('env: {A: "x\\0y"}', "env.A is to be a text, without zero bytes"),
        ("env: {A: {b: c}}", "env.A is to be a text"),
        ("env: {'A=B': x}", "'A=B' cannot be the name of a variable"),
        ("env: {'': x}", "'' cannot be the name of a variable"),
        ("mounts: [[1]]", "mounts[0] is to be a text or a number, not [1]"),
        ("mounts: ['']", "mounts[0] is empty"),
        ("secrets: [[1]]", "secrets[0] is to be a text"),
        ("clusters: {local: {gpus: [[1]]}}", "cluster.gpus[0] is to be a text"),
        ('launch_name: "a\\0b"', "launch_name holds a zero byte"),
        ("secrets: [CODE]\nenv: {CODE: x}", "env.CODE looks like a secret"),
        ("env: {DB: 'postgres://u:word@host/x'}", "env.DB holds a secret"),
        ("stages: {train: {env: {DB: 'postgres://u:word@host/x'}}}", "stages.train.env.DB holds a"),
    ],
)
def test_each_mistake_in_a_file_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "launch.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(recipe_dir=tmp_path)
    assert message in str(refused.value)


@pytest.mark.parametrize("value", ["/nonexistent/launch.yaml", "/tmp", "x" * 300])
def test_a_persons_file_that_is_named_has_to_be_one(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCHER_CONFIG", value)
    with pytest.raises(ConfigError, match=r"LAUNCHER_CONFIG names .* where there is no file"):
        load()
    monkeypatch.setenv("LAUNCHER_CONFIG", os.devnull)
    assert load().cluster.name == "local"
