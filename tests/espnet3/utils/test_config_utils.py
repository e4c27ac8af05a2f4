from __future__ import annotations

from pathlib import Path

import pytest

from espnet3.utils.config_utils import load_and_merge_config, load_config_with_defaults
from espnet3.utils.errors import ConfigError


@pytest.fixture
def conf(hostile_path: Path) -> Path:
    return hostile_path


def write(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def load(conf: Path, name: str = "training") -> dict:
    config = load_config_with_defaults(conf / f"{name}.yaml")
    return dict(config)


def test_entries_of_the_defaults_list_are_merged_in_order(conf: Path) -> None:
    write(
        conf,
        training="defaults: [base, {model: small}, {optimizer: null}]\nseed: 2\n",
        base="seed: 1\nmodel: {layers: 1, dim: 1}\nextra: base\n",
        model__small="layers: 4\n",
    )
    assert load(conf) == {"seed": 2, "model": {"layers": 4, "dim": 1}, "extra": "base"}


def test_self_may_come_first(conf: Path) -> None:
    write(conf, training="defaults: [_self_, base]\nseed: 2\n", base="seed: 1\n")
    assert load(conf) == {"seed": 1}


def test_nested_defaults_count_from_the_file_that_holds_them(conf: Path) -> None:
    write(
        conf,
        training="defaults: [{model: small}]\n",
        model__small="defaults: [tiny]\nlayers: 4\n",
        model__tiny="layers: 2\ndim: 8\n",
    )
    assert load(conf) == {"model": {"layers": 4, "dim": 8}}


def test_resolvers_count_from_the_file_that_holds_them(conf: Path) -> None:
    (conf / "model").mkdir()
    (conf / "model" / "words.txt").write_text("ZERO\nONE\n")
    write(
        conf,
        training="defaults: [{model: small}]\ntag: ${self_name:}\n",
        model__small=(
            "name: words\nwords: ${load_line:${.name}.txt}\nextra: ${load_yaml:more.yaml}\n"
            "here: ${config_path:../x}/y\nstem: ${self_name:}\n"
        ),
        model__more="a: 1\n",
    )
    assert load(conf) == {
        "tag": "training",
        "model": {
            "name": "words",
            "words": ["ZERO", "ONE"],
            "extra": {"a": 1},
            "here": f"{conf.resolve()}/x/y",
            "stem": "small",
        },
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("defaults: [bse]", r"bse\.yaml \(named in the defaults of .*training\.yaml\).*'base'"),
        ("defaults: [training]", r"lead back to their beginning"),
        ("defaults: base", r"'defaults' must be a list"),
        ("defaults: [{model: 3}]", r"'model' is 3"),
        ("- a\n- b", r"must be a mapping"),
        ("plain text", r"must be a mapping"),
        ("a: [1", r"not valid YAML"),
        ("x: ${oops", r"training\.yaml: 'x': the interpolation .* cannot be read"),
        ("null: 1", r"training\.yaml: a key at the top cannot be one"),
        ("model: {null: 1}", r"training\.yaml: a key below 'model' cannot be one"),
        ("a: &x [*x]", r"training\.yaml: an alias"),
        ("a: &x {b: *x}", r"training\.yaml: an alias"),
        ("a: ${load_yaml:training.yaml}", r"training\.yaml: 'a' leads back to its beginning"),
        ("defaults: [base]\nbase: [1]", r"training\.yaml: 'base' is a list; a mapping is needed"),
        (
            "defaults: [{under: base}]\nunder: {list: {a: 1}}",
            r"training\.yaml: 'under\.list' is a mapping; a list is needed",
        ),
        ("lr: 1\nb: ${optimizer.lrr}\noptimizer: {lr: 1}", r"'b'.*optimizer\.lrr.*'optimizer\.lr'"),
        ("words: ${load_line:absent.txt}", r"training\.yaml: 'words'.*absent\.txt"),
    ],
)
def test_mistakes_name_the_file_that_asked(conf: Path, content: str, message: str) -> None:
    write(conf, training=content, base="base: {a: 1}", under__base="list: [1]")
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load(conf)


def test_a_list_where_the_template_has_a_mapping_is_named(conf: Path) -> None:
    write(conf, training="trainer: [1]")
    with pytest.raises(ConfigError, match=r"'trainer' is a list; a mapping is needed"):
        load_and_merge_config(conf / "training.yaml", "training.yaml", "egs3.TEMPLATE.asr")


@pytest.mark.parametrize("content", ["", "# to be written\n", "{}", "defaults: [base]"])
def test_a_training_config_that_says_nothing_is_refused(conf: Path, content: str) -> None:
    write(conf, training=content, base="")
    with pytest.raises(ConfigError, match=r"training\.yaml is empty"):
        load_and_merge_config(conf / "training.yaml", "training.yaml", "egs3.TEMPLATE.asr")


def test_a_missing_config_names_what_is_there(conf: Path) -> None:
    write(conf, training="{}")
    with pytest.raises(ConfigError, match=r"trainng\.yaml.*Did you mean 'training'"):
        load(conf, "trainng")
