from __future__ import annotations

import pytest

from espnet3.systems.base.system import BaseSystem
from espnet3.utils import masking
from espnet3.utils.masking import looks_secret, mask_arguments, mask_mapping, mask_text
from espnet3.utils.metadata import collect_configs


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "WANDB_API_KEY",
        "SLURM_JWT",
        "AWS_SECRET_ACCESS_KEY",
        "db.password",
        "DB_PWD",
        "apiKey",
        "GITHUB_PAT",
        "credentials",
        "api_keys",
        "secret",
        "passwords",
        "wandb_key",
        "deploy_key",
        "db_pass",
        "pass",
        "auth_header",
        "Authorization",
        "hftoken",
        "clientSecret",
        "dbpassword",
        "accesskey",
        "hf_tokens",
    ],
)
def test_names_of_secrets_are_recognised(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "token_type",
        "tokenizer",
        "unk_token",
        "max_tokens",
        "PWD",
        "OLDPWD",
        "key",
        "PATH",
        "author",
        "num_tokens",
        "tokens",
        "special_tokens",
        "subtoken",
        "token_list",
        "keyboard",
        "monkey",
        "keys",
        "metric_keys",
        "bypass",
        "lowpass",
        "compass",
        "two_pass",
        "header",
        "passes",
    ],
)
def test_ordinary_settings_are_not_taken_for_secrets(name: str) -> None:
    assert not looks_secret(name)


def test_values_of_secret_keys_are_masked_at_any_depth() -> None:
    masked = mask_mapping({"hub": [{"hf_token": "abc", "url": "https://me:pass@host/x"}], "lr": 1})
    assert masked == {"hub": [{"hf_token": "***", "url": "https://me:***@host/x"}], "lr": 1}


def test_lists_and_mappings_below_a_secret_key_are_masked() -> None:
    config = {
        "api_keys": ["abc", "def"],
        "passwords": {"anna": "x", "bert": [1234], "none": None},
        "use_auth_token": True,
        "metrics": [{"key": "WER", "tokens": ["a"], "num_tokens": 3}],
    }
    assert mask_mapping(config) == {
        **config,
        "api_keys": ["***", "***"],
        "passwords": {"anna": "***", "bert": ["***"], "none": None},
    }


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("https://h/x?a=1&token=abc&b=2#c", "https://h/x?a=1&token=***&b=2#c"),
        ("https://h/x?key=abc", "https://h/x?key=***"),
        ("https://h/x?X-Amz-Signature=abc", "https://h/x?X-Amz-Signature=***"),
        ("https://h/x?token_type=bearer&page=2", "https://h/x?token_type=bearer&page=2"),
    ],
)
def test_secret_parameters_of_urls_are_masked(url: str, masked: str) -> None:
    assert mask_text(f"see '{url}' there") == f"see '{masked}' there"


def test_a_configs_secret_is_masked_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", masking._KnownSecrets())
    system = BaseSystem()
    system.hub_config = {"note": "use hf_12345678", "hf_tokens": {"mine": "hf_12345678"}}
    system.training_config = {"sort_key": "duration", "order": "by duration"}
    content = collect_configs(system, None)
    assert content["hub"]["resolved"] == {"note": "use ***", "hf_tokens": {"mine": "***"}}
    assert content["training"]["resolved"]["order"] == "by duration"
    assert mask_text("uploading with hf_12345678") == "uploading with ***"


def test_secret_arguments_are_masked_and_the_rest_kept() -> None:
    argv = ["run.py", "--hf_token", "abc", "--stages", "train", "publication.password=x", "a=b"]
    assert mask_arguments(argv) == [
        "run.py",
        "--hf_token",
        "***",
        "--stages",
        "train",
        "publication.password=***",
        "a=b",
    ]


def test_remembered_values_vanish_from_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", masking._KnownSecrets())
    masking.remember_secrets({"HF_TOKEN": "hf_12345678", "PWD": "/home/me", "A_TOKEN": "hf_1234"})
    assert mask_text("got hf_12345678 in /home/me") == "got *** in /home/me"
