"""What is counted, after which cleaning."""

import pytest

from espnet3.systems.asr.scoring import CER, WER
from espnet3.utils.errors import ConfigError


@pytest.mark.parametrize(
    ("clean_types", "text", "expected"),
    [
        (None, " Don't  STOP, now! ", "Don't STOP, now!"),
        ("lowercase", "Don't STOP", "don't stop"),
        (["uppercase"], "straße", "STRASSE"),
        (
            ["no_punctuation", "lowercase"],
            "Don't STOP, twenty-one: «now»!",
            "don't stop twenty-one now",
        ),
        (["nfkc"], "ﬁve ５", "five 5"),
    ],
)
def test_cleaning(clean_types, text, expected):
    assert WER(clean_types).clean(text) == expected


def test_tokens():
    assert WER().tokens("one two") == ["one", "two"]
    assert CER().tokens("a b") == ["a", " ", "b"]


def test_names():
    assert WER().name == "WER"
    assert CER(name="CER_lowercase").name == "CER_lowercase"


def test_an_unknown_cleaner_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'lowercase'"):
        WER(["lower_case"])
