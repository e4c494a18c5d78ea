"""Every code block of the README and the site runs, or says that it is output; `snippets` tells how."""

from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, Block, Workplace, blocks, pages

# Pages with many commands take longest; they come first, so that processes finish together.
PAGES = sorted(pages(), key=lambda page: -page.read_text(encoding="utf-8").count("\n$ "))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_snippets_of_a_page_run(page: Path, tmp_path: Path, scripts: Path) -> None:
    # The README has the command as it is installed.
    with Workplace(tmp_path, page, None if page.name == "README.md" else scripts) as workplace:
        for block in blocks(page):
            workplace.run(block)


def test_a_block_with_an_unknown_info_string_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for info in ("", "pyhton", "python norun", 'text title="x"'):
        page.write_text(f"text\n\n```{info}\nx\n```\n")
        with pytest.raises(AssertionError, match=r"page\.md:3: .* info string"):
            blocks(page)


def test_shown_output_must_be_the_real_one(tmp_path: Path) -> None:
    right = ["$ printf 'one\\n2\\n0.25 s\\n'", "one", "…", "0.5 s", "$ exit 3", "# exit code 3"]
    with Workplace(tmp_path, ROOT / "README.md") as workplace:
        workplace.run(Block("console", None, right, 1, follows=False))
        for wrong, message in (
            (["$ echo one", "two"], "the page shows"),
            (["$ echo 1", "2"], "the page shows"),
            (["$ exit 3"], "exit code 3"),
        ):
            with pytest.raises(AssertionError, match=message):
                workplace.run(Block("console", None, wrong, 1, follows=False))
