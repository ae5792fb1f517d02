"""Which models this machine may ask."""

import json

import pytest

from culture_core.vlm import VLMError, open_vlm
from culture_core.vlm.config import configured
from culture_core.vlm.server import ServerVLM
from culture_core.vlm.usage import Prices

URL = "http://127.0.0.1:9/v1"
ENTRY = {"url": URL, "model": "m"}


@pytest.fixture(autouse=True)
def _no_models_of_the_users(monkeypatch, tmp_path):
    for name in ("URL", "MODEL", "KEY", "CONFIG"):
        monkeypatch.delenv(f"CULTURE_VLM_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))


@pytest.fixture
def write(monkeypatch, tmp_path):
    def to_file(content: object) -> None:
        path = tmp_path / "models.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(0o644)
        monkeypatch.setenv("CULTURE_VLM_CONFIG", str(path))

    return to_file


def test_nothing_is_configured_unless_somebody_did_it():
    assert configured() == {}
    with pytest.raises(VLMError, match="CULTURE_VLM_URL.*models.json"):
        open_vlm()


def test_the_environment_describes_one_server(monkeypatch):
    monkeypatch.setenv("CULTURE_VLM_URL", URL)
    with pytest.raises(VLMError, match="name of a model"):
        open_vlm()
    monkeypatch.setenv("CULTURE_VLM_MODEL", "m")
    monkeypatch.setenv("CULTURE_VLM_KEY", "k")
    vlm = open_vlm()
    assert isinstance(vlm, ServerVLM)
    assert (vlm.settings.url, vlm.settings.model, vlm.settings.key) == (URL, "m", "k")


def test_a_file_describes_several_with_all_their_settings(write, monkeypatch):
    monkeypatch.setenv("MY_KEY", "k")
    prices = {"prompt": 0.3, "completion": 2.5, "currency": "EUR"}
    write({
        "one": {
            **ENTRY, "key_env": "MY_KEY", "prices": prices, "requests_per_minute": 30, "options": {"a": 1},
        },
        "two": {"kind": "zero-shot", "folder": "x"}, "three": {**ENTRY, "model": "n"},
    })  # fmt: skip
    assert [entry["kind"] for entry in configured().values()] == ["server", "zero-shot", "server"]
    one = open_vlm()
    assert (one.settings.key, one.settings.prices) == ("k", Prices(0.3, 2.5, "EUR"))
    assert open_vlm("three").name == "n"
    with pytest.raises(VLMError, match="no VLM 'two': configured are one, three"):
        open_vlm("two")


def test_the_environments_server_goes_before_the_files(write, monkeypatch):
    write({"vlm": {**ENTRY, "model": "of-file"}, "other": ENTRY})
    monkeypatch.setenv("CULTURE_VLM_URL", URL)
    monkeypatch.setenv("CULTURE_VLM_MODEL", "of-environment")
    assert list(configured()) == ["vlm", "other"] and open_vlm().name == "of-environment"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ([], "object of objects"),
        ({"a": 1}, "object of objects"),
        ({"a": {**ENTRY, "kind": "oracle"}}, "unknown kind 'oracle'.*server, local"),
        ({"a": {"url": URL}}, "lacks model"),
        ({"a": {**ENTRY, "modle": "m"}}, "has modle.*may have.*timeout"),
        ({"a": {**ENTRY, "key_env": "NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE, which is not set"),
        ({"a": {**ENTRY, "prices": {"prompt": 1}}}, "a million tokens"),
        ({"a": {**ENTRY, "timeout": "long"}}, "settings of the VLM 'a' are wrong"),
        ({"a": {"kind": "local"}}, "lacks folder"),
        ({"a": {"kind": "local", "folder": "/not/there"}}, "no Hugging Face folder"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content, message, write):
    write(content)
    with pytest.raises(VLMError, match=message):
        open_vlm()


def test_a_file_that_is_named_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("CULTURE_VLM_CONFIG", str(tmp_path / "none.json"))
    with pytest.raises(VLMError, match="not there"):
        configured()


def test_a_key_that_others_can_read_is_warned_of(write, caplog):
    write({"a": {**ENTRY, "key": "k"}})
    for _ in range(3):
        configured()
    assert len(caplog.records) == 1 and "chmod 600" in caplog.text and "'k'" not in caplog.text
