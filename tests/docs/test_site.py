"""The site builds without a warning, and what the README links to is there."""

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.snippets import ROOT


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", "docs/mkdocs.yml"]
    command += ["--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "explanation" / "architecture.svg").is_file()
    fetched = re.compile(r"""<(?:script|img|iframe|link rel="?stylesheet"?)[^>]*(?:src|href)=["']?https?:""")
    built = list(tmp_path.rglob("*.html"))
    assert len(built) > 15
    assert [page for page in built if fetched.search(page.read_text(encoding="utf-8"))] == []


def test_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).is_file()] == []
