import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.encoding.columns import columns_of
from service.model.bundle import Bundle
from service.model.scorer import Model, Score
from tests.support.html import Page
from tests.support.logs import genuine_log
from tests.support.training import command, refused, runner
from training.cli.main import app


def test_score_writes_a_row_for_every_sequence_in_order_with_a_reason_where_there_is_no_score(
    bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema=False).head(2000)
    bad = events.head(1).with_columns(sequence_id=pl.lit("broken"), ts=pl.lit("-1"))
    pl.concat([events, bad]).write_csv(tmp_path / "e.csv")
    command(
        "score",
        "--bundle",
        bundle.path,
        "--events",
        tmp_path / "e.csv",
        "--out",
        tmp_path / "s.csv",
        "--event-scores",
        tmp_path / "es.csv",
    )
    scores = pl.read_csv(tmp_path / "s.csv", schema_overrides={"sequence_id": pl.String})
    assert scores.columns == ["sequence_id", "score", "decision", "type", "reason", "false_alarm_rate", "support"]
    assert scores["sequence_id"].to_list() == [*events["sequence_id"].unique(maintain_order=True), "broken"]
    assert scores["score"].is_null().to_list() == [False] * (scores.height - 1) + [True]
    assert "set aside" in scores["reason"][-1]
    per_event = pl.read_csv(tmp_path / "es.csv")
    assert per_event.height == 2000
    assert per_event["score"].is_between(0, 1).all()


def test_scores_from_the_command_are_those_of_the_model(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema_length=None, schema_overrides={"sequence_id": pl.String})
    wanted = events["sequence_id"][0]
    events.filter(pl.col("sequence_id") == wanted).write_csv(tmp_path / "e.csv")
    command("score", "--bundle", bundle.path, "--events", tmp_path / "e.csv", "--out", tmp_path / "s.csv")
    model = Model.load(bundle)
    rows = events.filter(pl.col("sequence_id") == wanted).to_dicts()
    [answer] = model.scores([columns_of(rows)])
    assert isinstance(answer, Score)
    assert pl.read_csv(tmp_path / "s.csv")["score"][0] == pytest.approx(answer.score, abs=1e-5)


def scored(bundle: Bundle, events: pl.DataFrame, folder: Path, code: int, *more: str) -> tuple[pl.DataFrame, str]:
    """The scores of a log, each sequence by itself, and what `score` said, which ends with the exit code."""
    events.write_csv(folder / "e.csv")
    paths = ["--bundle", str(bundle.path), "--events", str(folder / "e.csv"), "--out", str(folder / "s.csv")]
    done = runner.invoke(app, ["score", *paths, "--crowd", "none", *more])
    assert done.exit_code == code, done.output
    scores = pl.read_csv(folder / "s.csv", infer_schema=False) if code < 2 or (folder / "s.csv").exists() else None
    return pl.DataFrame() if scores is None else scores, " ".join(done.output.split())


def test_score_says_what_it_did_and_ends_with_1_or_2_where_much_could_not_be_scored(
    bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema=False).head(2000)
    ids = events["sequence_id"].unique(maintain_order=True).to_list()
    plain, said = scored(bundle, events, tmp_path, 0)
    assert said.startswith(f"{len(ids)} sequences read, {len(ids)} scored: ")
    assert f"see {tmp_path / 's.csv'}" in said
    assert [int(n) for n in re.findall(r"([\d,]+) (?:allow|review|block)", said)] == [
        (plain["decision"] == decision).sum() for decision in ("allow", "review", "block")
    ]
    some = ids[: len(ids) // 5]
    spoilt = events.with_columns(ts=pl.when(pl.col("sequence_id").is_in(some)).then(pl.lit("-7")).otherwise("ts"))
    scores, said = scored(bundle, spoilt, tmp_path, 1)
    assert f"{len(some)} not scored: {len(some)} all its rows were set aside as bad" in said
    assert scores["score"].is_null().sum() == len(some)
    others, same = (t.filter(~pl.col("sequence_id").is_in(some)) for t in (scores, plain))
    assert others.drop("score", "type").equals(same.drop("score", "type"))
    # in another batch it may be rounded otherwise
    assert others["score"].cast(float).to_numpy() == pytest.approx(same["score"].cast(float).to_numpy(), rel=1e-4)
    scores, said = scored(bundle, events.with_columns(ts=pl.lit("-7")), tmp_path, 2)
    assert f"{len(ids)} sequences read, 0 scored" in said
    assert scores["score"].is_null().all()
    _, said = scored(bundle, events.with_columns(ts=pl.lit("24/10/2020")), tmp_path, 2)
    assert "row 2: ts is '24/10/2020'" in said
    assert "--time-format '%d/%m/%Y'" in said


def test_padded_ids_and_codes_in_a_smaller_file_are_scored_as_ever(
    bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema=False).head(2000)
    plain, _ = scored(bundle, events, tmp_path, 0)
    padded, _ = scored(bundle, events.with_columns("  " + pl.col("sequence_id") + " "), tmp_path, 0)
    assert padded.equals(plain)
    last = plain["sequence_id"][-1]
    alone, _ = scored(bundle, events.filter(pl.col("sequence_id") == last), tmp_path, 0)
    assert float(alone["score"][0]) == pytest.approx(float(plain["score"][-1]), abs=1e-5)


def test_a_log_without_the_bundles_columns_is_refused_unless_that_is_allowed(
    bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    events = pl.read_csv(attacked / "events.csv", infer_schema=False).head(500)
    renamed = events.rename({"ts": "timestamp", "item_id": "product_id"})
    scores, said = scored(bundle, renamed, tmp_path, 2)
    assert "the model reads item_id, ts, which the log lacks" in said
    assert "--columns item_id=product_id,ts=timestamp" in said
    assert scores.is_empty()
    plain, _ = scored(bundle, events, tmp_path, 0)
    mapped, _ = scored(bundle, renamed, tmp_path, 0, "--columns", "item_id=product_id,ts=timestamp")
    assert mapped.equals(plain)
    without, said = scored(bundle, renamed, tmp_path, 0, "--allow-missing")
    assert "scored without item_id, ts" in said
    assert without["sequence_id"].equals(plain["sequence_id"])


def test_inject_keeps_codes_as_they_are(tmp_path: Path) -> None:
    table = genuine_log(40).with_columns(zip=pl.Series([f"{n % 90:03d}" for n in range(genuine_log(40).height)]))
    table.write_csv(tmp_path / "e.csv")
    command("inject", "--events", tmp_path / "e.csv", "--out", tmp_path / "out")
    written = pl.read_csv(tmp_path / "out" / "events.csv", infer_schema=False)
    assert set(written["zip"]) == set(table["zip"])
    assert set(written["item_id"]) <= set(table["item_id"])


def test_sites_need_names_of_their_own(tmp_path: Path) -> None:
    sites = ["--site", "a=1.csv,2.csv", "--site", "b=3.csv,4.csv", "--site", "a=5.csv,6.csv"]
    assert "two sites have one name" in refused("federate", *sites, "--out", tmp_path / "out")
    assert "--proximal" in refused("federate", *sites, "--out", tmp_path / "out", "--proximal", -0.1)


def test_a_log_of_words_alone_trains_through_the_same_command_and_is_scored_by_its_kinds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good, bad = ["lovely", "shoes", "fit", "well", "colour"], ["win", "free", "click", "prize", "now"]
    rows = [" ".join(rng.choice(bad if i % 3 == 0 else good, 8)) + f" {i}" for i in range(300)]
    titles = [" ".join(rng.choice(good, 5)) + f" {i}" for i in range(300)]
    ids = [f"m{i}" for i in range(300)]
    table = pl.DataFrame({"sequence_id": ids, "title": titles, "note": rows, "tmp": [i % 5 for i in range(300)]})
    table.write_csv(tmp_path / "e.csv")
    pl.DataFrame(
        {"sequence_id": [f"m{i}" for i in range(300)], "label": [int(i % 3 == 0) for i in range(300)]}
    ).write_csv(tmp_path / "l.csv")
    command(
        "fit",
        "--events",
        tmp_path / "e.csv",
        "--labels",
        tmp_path / "l.csv",
        "--out",
        tmp_path / "b",
        "--preset",
        "tiny",
        "--epochs",
        2,
        "--quiet",
        *("--kinds", "tmp=ignore", "--text", "title,note"),
    )
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest["feature_spec"] == {"title": "text", "note": "text"}
    assert bundle.manifest["metrics"]["test"]["auc"] > 0.95
    assert bundle.encoder.read == ("note", "title")
    scores, said = scored(bundle, table.drop("tmp"), tmp_path, 0)
    assert "missing" not in said
    assert scores["decision"].null_count() == 0
    _, said = scored(bundle, table.drop("title"), tmp_path, 2)
    assert "the model reads title, which the log lacks" in said
    blank = pl.when(pl.int_range(pl.len()) % 4 == 0).then(None).otherwise("title")
    _, said = scored(bundle, table.with_columns(title=blank), tmp_path, 0)
    assert "far more values missing than in training: title 25% in place of 0%" in said


def test_describe_says_what_a_fit_does(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    files = ["--events", attacked / "events.csv", "--labels", attacked / "labels.csv"]
    said = command("describe", *files, "--kinds", "price=ignore", "--out", tmp_path / "d.html")
    page = Page((tmp_path / "d.html").read_text())
    kinds = {row[0]: row[1] for row in page.rows if len(row) == 6}
    for name, kind in bundle.manifest["feature_spec"].items():
        assert kinds[name].startswith("ignore" if name == "price" else kind)
    assert set(kinds) - set(bundle.manifest["feature_spec"]) == {"column", "sequence_id", "ts", "event_label"}
    warnings = json.loads((bundle.path / "evaluation.json").read_text())["warnings"]
    assert all(warning in page.text for warning in warnings)
    assert str(tmp_path / "d.html") in " ".join(said.split())
    for name in kinds.keys() - {"column"}:
        assert name in said


def test_describe_shows_in_the_terminal_what_looks_wrong_and_refuses_what_a_fit_refuses(tmp_path: Path) -> None:
    table = genuine_log(20).with_row_index("").with_columns(note=pl.lit("<b>[red]"))
    table.write_csv(tmp_path / "e.csv")
    said = " ".join(command("describe", "--events", tmp_path / "e.csv").split())
    assert f"warning: {tmp_path / 'e.csv'}: column '' numbers the rows" in said
    assert "column 'note' is '<b>[red]' in each row, and left out" in said
    assert said.count("numbers the rows, as the index of a data frame does, and is left out") == 1
    assert "none; what lies farthest" in said
    assert "--kinds or --text names 'x'" in refused("describe", "--events", tmp_path / "e.csv", "--kinds", "x=text")
    assert "--kinds price=money: write" in refused("describe", "--events", tmp_path / "e.csv", "--kinds", "price=money")
    assert "no such file" in refused("describe", "--events", tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("sequence_id,label\na,0\n", "none of its 1 sequences is in the log"),
        ("sequence_id\na\n", "column 'label' is missing"),
        ("", "the file is empty"),
    ],
)
def test_bad_labels_end_the_command_with_one_clear_line(attacked: Path, tmp_path: Path, labels: str, says: str) -> None:
    (tmp_path / "l.csv").write_text(labels)
    assert says in refused(
        "fit", "--events", attacked / "events.csv", "--labels", tmp_path / "l.csv", "--out", tmp_path / "b"
    )
    assert not (tmp_path / "b").exists()


def test_campaigns_are_written_as_tables_as_json_and_as_a_page(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    told = ["--types", "copy_whole,fake_order", "--size", 0.1, "--campaigns", 12]
    command("inject", "--events", attacked / "genuine.csv", "--out", tmp_path, *told)
    log = tmp_path / "events.csv"
    command("campaigns", "--events", log, "--out", tmp_path / "plain")
    command("campaigns", "--events", log, "--bundle", bundle.path, "--out", tmp_path / "scored")
    known = pl.read_csv(tmp_path / "labels.csv", schema_overrides={"sequence_id": pl.String})
    for folder, columns in (("plain", []), ("scored", ["score", "decision"])):
        found = json.loads((tmp_path / folder / "campaigns.json").read_text())
        rows = pl.read_csv(tmp_path / folder / "campaigns.csv")
        members = pl.read_csv(tmp_path / folder / "members.csv", schema_overrides={"sequence_id": pl.String})
        assert members.columns == ["sequence_id", "campaign", "certainty", *columns]
        assert members["sequence_id"].is_unique().all()
        assert (
            rows["campaign"].to_list()
            == list(range(1, rows.height + 1))
            == members["campaign"].unique().sort().to_list()
        )
        assert rows["members"].to_list() == [len(c["members"]) for c in found["campaigns"]]
        assert rows["log10_expected"].is_sorted()
        assert (rows["log10_expected"] < -2).all()
        labelled = members.join(known, on="sequence_id")
        assert labelled["label"].mean() > 0.9
        page = Page((tmp_path / folder / "campaigns.html").read_text())
        assert page.headings[0] == "Campaigns in events.csv"
        assert page.plots >= 2
        assert [row[1] for row in page.rows[1 : 1 + rows.height]] == [str(n) for n in rows["members"]]
    scored = pl.read_csv(tmp_path / "scored" / "members.csv", schema_overrides={"sequence_id": pl.String})
    command("score", "--bundle", bundle.path, "--events", log, "--out", tmp_path / "s.csv")
    scores = pl.read_csv(tmp_path / "s.csv", schema_overrides={"sequence_id": pl.String})
    both = scored.join(scores, on="sequence_id")
    assert both["score"].to_list() == pytest.approx(both["score_right"].to_list(), abs=1e-5)


def test_a_log_that_names_nothing_has_no_campaigns_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("sequence_id,action\n" + "".join(f"u{i},{'ab'[i % 2]}\n" for i in range(10)))
    done = runner.invoke(app, ["campaigns", "--events", str(tmp_path / "e.csv"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "no column of identifiers" in " ".join(done.output.split())
