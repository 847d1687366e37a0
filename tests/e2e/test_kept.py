"""The README's table of what is kept is what is measured."""
import sys

import pytest

from harness import ROOT

sys.path.insert(0, str(ROOT / "tests" / "drill"))

from kept import EVENTS, ROWS, OurPair, measure  # noqa: E402


def told(event):
    """What the README says of gateway-pro and that event."""
    text = (ROOT / "README.md").read_text()
    lines = text[text.index("<!-- kept:"):text.index("<!-- /kept -->")].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    column = rows[0].index(f"gateway-pro:<br>{event}")
    return {row[0]: row[column] for row in rows[2:]}


@pytest.mark.heavy
@pytest.mark.parametrize("event", EVENTS)
def test_readme_says_what_is_kept(event):
    """Each row of that column."""
    assert set(told(event)) == set(ROWS)
    assert measure(OurPair, event) == told(event)
