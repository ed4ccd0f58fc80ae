"""The record of what operators changed, as it is read."""

from pathlib import Path

from service.stores.audit import MOST_READ, Audit


def test_the_latest_changes_come_first_and_half_a_line_is_none(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    assert audit.latest(10) == []
    for number in range(5):
        audit.note("ann", "thresholds", number=number)
    assert [one["number"] for one in audit.latest(3)] == [4, 3, 2]
    assert len(audit.latest(10)) == 5
    with audit.path.open("a") as file:
        file.write('{"time": "20')
    assert [one["number"] for one in audit.latest(2)] == [4, 3]


def test_of_a_long_audit_only_the_end_is_read(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    for number in range(12):
        audit.note("ann", "thresholds", number=number, more="x" * (MOST_READ // 8))
    found = [one["number"] for one in audit.latest(500)]
    assert found == list(range(11, 11 - len(found), -1))
    assert 5 <= len(found) < 9
