import logging
from pathlib import Path

import pytest

from training.data.clean import CleaningReport, clean_events
from training.data.labels import read_labels
from training.data.log import LogError

GOOD = "sequence_id,ts,action\n" + "".join(f"s{i // 10},{1000 + i},click\n" for i in range(100))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,label\ns1,1\n", "column 'sequence_id' is missing; present: id, label"),
        ("sequence_id,y\ns1,1\n", "column 'label' is missing"),
        ("sequence_id,label\ns1,1\ns2,odd\n", "row 3: label is 'odd', neither 0 .normal. nor 1 .*--positive 'odd'"),
        ("sequence_id,label\ns1,1\ns2,0\ns3,odd\n", "row 4: label is 'odd'"),
        ("sequence_id,label\ns1,\ns2,-\n", "no sequence has a label, all are blank"),
        ("sequence_id,label\ns1,1\ns1,0\n", "'s1' has both labels"),
        ("sequence_id,label\ns1,1\n,0\n,1\ns2,0\n", "2 of 4 labels have no sequence_id, first at row 3. More than"),
        ("sequence_id,label\n,0\n ,1\n", "2 of 2 labels have no sequence_id"),
        ("sequence_id,label\nx,1\ny,0\n", "none of its 2 sequences is in the log"),
        ("sequence_id,label\ns1,0\ns2,0\n", "every labelled sequence has label 0"),
        ("sequence_id,label\ns1,1\ns2,0\nx,1\n", "1 of 3 labels have no events, first for sequence 'x'"),
    ],
)
def test_unusable_labels_say_why(tmp_path: Path, text: str, says: str) -> None:
    log, report = clean_events(write(tmp_path / "e.csv", GOOD))
    with pytest.raises(LogError, match=says):
        read_labels(write(tmp_path / "l.csv", text), log, report)


def test_labels_are_lined_up_and_gaps_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, report = clean_events(write(tmp_path / "e.csv", GOOD))
    text = "sequence_id,label,type,gender\ns3,1,bot,f\ns4,,,m\ns1,0,,m\ns0,1.0,,f\ns4,N/A,,f\n"
    with caplog.at_level(logging.WARNING):
        labels = read_labels(write(tmp_path / "l.csv", text), log, report)
    assert labels.known.tolist() == [True, True, False, True] + [False] * 6
    assert labels.label.tolist()[:4] == [1, 0, 0, 1]
    assert labels.types[:4] == [None, None, None, "bot"]
    assert labels.groups["gender"].to_list()[:5] == ["f", "m", None, "f", "m"]
    assert report.labels == {"labels": 3, "labels without events": 0, "sequences without a label": 7}
    assert "7 of 10 sequences have no label" in caplog.text
    assert isinstance(report, CleaningReport)


def test_a_label_of_nobody_is_left_out_and_said_and_a_blank_row_is_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, report = clean_events(write(tmp_path / "e.csv", GOOD))
    named = "".join(f"s{i},{i % 2}\n" for i in range(10))
    path = write(tmp_path / "l.csv", f"sequence_id,label,type\n{named},0\n,,\n,,\n,1,bot\n")
    labels = read_labels(path, log, report, max_bad_share=0.2)
    assert labels.label.tolist() == [0, 1] * 5
    assert labels.known.all()
    assert f"{path}: 2 of 12 labels have no sequence_id, first at row 12" in caplog.text
    assert report.labels == {"labels": 10, "labels without events": 0, "sequences without a label": 0}
