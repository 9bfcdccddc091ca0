"""The load test's pages in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from loadtest import pages
from loadtest.measure.sweep import Rung, sweep_of
from tests.unit.loadtest.play import facts, play, played

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]
# The page allows no script; a copy of it without that rule measures itself.
_MEASURE = """<script>
document.title = JSON.stringify([...document.querySelectorAll("svg")].map(svg => {
  const box = svg.getBoundingClientRect();
  return [box.width, box.height, svg.querySelectorAll("path").length];
}));
</script>"""


def opened(page: Path, profile: Path) -> tuple[str, str]:
    """What the browser made of the page, and what it complained of."""
    assert BROWSER is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command = [
        BROWSER,
        *flags,
        f"--user-data-dir={profile}",
        "--window-size=1200,900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def sizes(page: Path, profile: Path) -> list[list[float]]:
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    copy = page.with_name("measured.html")
    copy.write_text(text.replace("</body>", f"{_MEASURE}</body>"), "utf-8")
    found = re.search(r"<title>(.*?)</title>", opened(copy, profile)[0])
    assert found is not None
    measured: list[list[float]] = json.loads(found[1])
    return measured


@pytest.fixture(params=["run", "sweep"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "run":
        return pages.write(played(1), play(1), tmp_path)[0]
    return pages.write_sweep(sweep_of(facts().profile, [Rung(2.0, played(1))]), tmp_path)[0]


def test_the_browser_has_no_complaint(page: Path, tmp_path: Path) -> None:
    shown, complaints = opened(page, tmp_path / "profile")
    assert complaints == ""
    assert shown.count("<figure>") == page.read_text("utf-8").count("<figure>") > 0


def test_figures_are_as_wide_as_the_page(page: Path, tmp_path: Path) -> None:
    found = sizes(page, tmp_path / "profile")
    assert found
    for width, height, paths in found:
        assert width > 900
        assert height > 200
        assert paths > 5


def test_a_complaint_would_be_seen(page: Path, tmp_path: Path) -> None:
    page.write_text(page.read_text("utf-8").replace("</body>", "<script>1</script></body>"), "utf-8")
    assert "Content Security Policy" in opened(page, tmp_path / "profile")[1]
