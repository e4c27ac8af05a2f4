"""The pages that are made of the code: current, and with nothing left out."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import fields

import pytest
import yaml

from launcher import registry
from launcher.config import GROUPS
from launcher.settings.resources import Resources
from tests.docs.reference import PAGES
from tests.docs.reference.configuration import attributes
from tests.docs.reference.messages import _raised, messages
from tests.docs.reference.reasons import is_explained, reasons
from tests.docs.reference.troubleshooting import _FAMILIES, halves, is_of
from tests.docs.test_documents import REPOSITORY

SETTINGS = [
    registry.load(kind, name).Settings
    for kind in GROUPS.values()
    for name in registry.available(kind)
    if registry.is_own(kind, name)
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_as_the_code_makes_it(page: str) -> None:
    committed = (REPOSITORY / "docs" / page).read_text()
    assert committed == PAGES[page](), "type: python -m tests.docs.reference"


def test_every_message_has_one_cause_and_cure() -> None:
    families = [
        family
        for part in yaml.safe_load(_FAMILIES.read_text())["parts"]
        for family in part["families"]
    ]
    told = messages()
    times = Counter(dict.fromkeys(told, 0))
    for family in families:
        its = [each for each in told if is_of(each, family["modules"])]
        assert its, f"no message is met under {family['title']}"
        times.update(its)
    astray = {each.module: count for each, count in times.items() if count != 1}
    assert not astray, f"{_FAMILIES.name}: modules in no family, or in several: {astray}"


def test_every_reason_of_a_stage_is_explained_and_no_other() -> None:
    rows = yaml.safe_load(_FAMILIES.read_text())["reasons"]
    explained = [
        text for given, *_ in rows for text in ([given] if isinstance(given, str) else given)
    ]
    told = reasons()
    assert "its node failed" in told
    assert "cannot start …: …" in told
    unexplained = [each for each in told if not any(is_explained(each, its) for its in explained)]
    assert not unexplained, f"{_FAMILIES.name}, reasons: without a cause and a cure"
    unknown = [each for each in explained if not any(is_explained(its, each) for its in told)]
    assert not unknown, f"{_FAMILIES.name}, reasons: no stage ends with these"


def test_what_is_raised_is_found() -> None:
    source = (
        'raise ConfigError(f"no {x}. " "Give one.")\n'
        'raise _error("key", value, f"it is {y}")\n'
        'outcome = Outcome(FAILED, "cannot " + what)\n'
        "raise ConfigError(text)\n"
    )
    assert list(_raised(ast.parse(source))) == [
        ("ConfigError", "no …. Give one."),
        ("_error", "it is …"),
        ("Outcome", "cannot …"),
    ]


def test_a_message_is_cut_where_its_advice_begins() -> None:
    assert halves("no such file …. Give another one.") == (
        "no such file ….",
        "Give another one.",
    )
    assert halves("no such file …") == ("no such file …", "")


@pytest.mark.parametrize("settings", [Resources, *SETTINGS], ids=lambda each: each.__module__)
def test_every_setting_is_described(settings: type) -> None:
    names = {each.name for each in fields(settings)} - {"name"}
    assert names == set(attributes(inspect.getdoc(settings) or ""))


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)
def test_no_page_knows_this_machine(make: Callable[[], str]) -> None:
    assert str(REPOSITORY) not in make()
