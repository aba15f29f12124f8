"""Settings: where they come from, and what is said when they are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.settings import SettingsError, load_settings
from gateway.settings_docs import configuration_page

SECRET = "cs_do_not_show_this_value"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No setting from outside, and a working directory of the test's own."""
    for name in [*os.environ]:
        if name.startswith("OMNIOPS_") or name in ("DATABASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(**overrides: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(**overrides)
    return str(caught.value)


def test_arguments_win_over_environment_and_environment_over_the_file(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / "omniops.toml").write_text('log_level = "error"\n[pool]\nwarm = 1\nmaximum = 5\n')
    monkeypatch.setenv("OMNIOPS_POOL__WARM", "3")
    settings = load_settings(log_level="debug")
    assert (settings.log_level, settings.pool.warm, settings.pool.maximum) == ("debug", 3, 5)


def test_an_override_of_none_is_no_override(bare: Path) -> None:
    (bare / "omniops.toml").write_text('log_level = "error"')
    assert load_settings(log_level=None).log_level == "error"


def test_usual_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/x")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    settings = load_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://db/x"
    assert settings.openai_api_key is not None


def test_every_problem_is_named_with_its_places_and_what_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOPS_POOL__WARM", "-1")
    monkeypatch.setenv("OMNIOPS_TENANTS__ACME__SHOP__URL", "https://acme.example")
    message = refused(log_level="loud")
    assert "pool.warm is '-1': Input should be greater than or equal to 0. Ready kernels kept in stock." in message
    assert "Set pool.warm in omniops.toml, or the environment variable OMNIOPS_POOL__WARM." in message
    assert "tenants.acme.shop.consumer_key is missing." in message
    assert "OMNIOPS_TENANTS__ACME__SHOP__CONSUMER_SECRET" in message
    assert "log_level is 'loud'" in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("OMNIOPS_POOOL__WARM", "OMNIOPS_POOOL__WARM is set, but there is no such setting. Did you mean OMNIOPS_POOL?"),
        (
            "OMNIOPS_POOL__WRAM",
            "pool.wram (OMNIOPS_POOL__WRAM) is set, but there is no such setting. Did you mean warm?",
        ),
    ],
)
def test_a_misspelled_variable_is_named(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "3")
    assert said in refused()


def test_a_misspelled_key_of_the_file_is_named(bare: Path) -> None:
    (bare / "omniops.toml").write_text("[broker]\ncalls_per_sell = 3\n")
    assert "broker.calls_per_sell" in refused()
    assert "Did you mean calls_per_cell?" in refused()


def test_a_list_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOPS_POOL__PRELOAD", "numpy")
    assert "OMNIOPS_POOL__PRELOAD cannot be read: lists and tables are given as JSON" in refused()


def test_a_file_that_is_no_toml_is_named(bare: Path) -> None:
    (bare / "omniops.toml").write_text("[pool\n")
    assert "omniops.toml is no TOML" in refused()


def test_a_file_that_was_named_and_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOPS_CONFIG", "elsewhere.toml")
    assert "OMNIOPS_CONFIG names elsewhere.toml, which is no file" in refused()


@pytest.mark.parametrize(
    "toml",
    [
        f'[tenants.acme.shop]\nurl = "https://a:{SECRET}@/"\nconsumer_key = "k"\nconsumer_secret = "s"',
        f'[tenants.acme.shop]\nurl = "https://acme.example"\nconsumer_key = "k"\nconsumer_secret = ["{SECRET}"]',
        f'[tenants.acme.shop]\nurl = "https://acme.example"\nconsumer_key = "k"\nconsumer_secert = "{SECRET}"',
        f'tenants = "{SECRET}"',
        f'[server]\ntoken = {{ value = "{SECRET}" }}',
        f'openai_base_url = "{SECRET}"',
    ],
)
def test_no_value_that_may_be_secret_is_shown(toml: str, bare: Path) -> None:
    (bare / "omniops.toml").write_text(toml)
    assert SECRET not in refused()


def test_the_page_of_all_settings_is_the_settings() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    how = "run: python -m gateway.settings_docs > docs/configuration.md"
    assert page.read_text() == configuration_page(), how
