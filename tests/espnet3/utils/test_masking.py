from __future__ import annotations

import pytest

from espnet3.utils import masking
from espnet3.utils.masking import looks_secret, mask_arguments, mask_mapping, mask_text


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
    ],
)
def test_ordinary_settings_are_not_taken_for_secrets(name: str) -> None:
    assert not looks_secret(name)


def test_values_of_secret_keys_are_masked_at_any_depth() -> None:
    masked = mask_mapping({"hub": [{"hf_token": "abc", "url": "https://me:pass@host/x"}], "lr": 1})
    assert masked == {"hub": [{"hf_token": "***", "url": "https://me:***@host/x"}], "lr": 1}


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
