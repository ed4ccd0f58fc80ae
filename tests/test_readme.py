"""What the README says of settings and commands is what the code has."""

from service.settings import Settings
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_table_with_its_default() -> None:
    for name, field in Settings.model_fields.items():
        shown = "" if field.is_required() or field.default is None else str(field.default)
        default = shown and f"`{shown}`"
        assert f"| `RECGUARD_{name.upper()}` | {default} | {field.description} |" in README


def test_no_path_or_host_of_one_machine_is_named() -> None:
    assert "/tmp/" not in README
    assert "/root" not in README
