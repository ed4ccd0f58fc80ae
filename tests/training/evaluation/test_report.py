from pathlib import Path

from service.model.bundle import Bundle
from tests.training.conftest import command


def test_the_report_is_one_page_with_its_plots_and_no_outside_address(bundle: Bundle, tmp_path: Path) -> None:
    command("report", "--bundle", bundle.path, "--out", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page == (bundle.path / "report.html").read_text()
    strips = page.count("aria-label='highest score")
    assert strips == 18  # best finds, worst misses, worst false alarms
    assert page.count("<svg") == 7 + strips
    for word in ("ROC", "Confusion matrix", "By type", "Which events", "Event by event", "rows read"):
        assert word in page
    assert "src=" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    )
