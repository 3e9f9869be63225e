"""The pictures in the repository are what their scripts draw."""

import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"


def test_the_tied_tree_is_drawn_from_a_real_tree_and_its_file(tmp_path, monkeypatch):
    out = tmp_path / "tied_tree.svg"
    monkeypatch.setattr(sys, "argv", ["tied_tree.py", "--out", str(out)])
    runpy.run_path(str(PICTURES / "tied_tree.py"), run_name="__main__")
    assert out.read_text(encoding="utf-8") == (PICTURES / "tied_tree.svg").read_text(encoding="utf-8")
    ElementTree.parse(out)  # well-formed, as a browser wants it
