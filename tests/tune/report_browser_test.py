#!/usr/bin/env python3
"""The report of `adamas tune` in headless Chromium: what the page shows is what the run's events say.

Usage: report_browser_test.py ADAMAS CHROMIUM
"""

import html.parser
import json
import pathlib
import subprocess
import sys
import tempfile

SHAPES = "kv_heads=1,2 tokens=1024"


class Page(html.parser.HTMLParser):
    """Cells of tables by class, and how often each element of an SVG occurs."""

    def __init__(self):
        super().__init__()
        self.tables, self.shapes, self.texts = {}, {}, []
        self.rows, self.cell, self.svg = None, None, None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self.rows = self.tables.setdefault(attributes.get("class"), [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.cell = ""
        elif tag == "svg":
            self.svg = attributes.get("class")
        elif self.svg:
            key = (self.svg, tag)
            self.shapes[key] = self.shapes.get(key, 0) + 1

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell.strip())
            self.cell = None
        elif tag == "svg":
            self.svg = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data
        elif self.svg:
            self.texts.append((self.svg, data.strip()))


def tune(adamas, folder):
    command = [adamas, "tune", "--device", "cpu", "--spec", "head_dim=64 budget=32", "--shapes", SHAPES,
               "--budget-time", "30s", "--memory", "0.2", "--out", folder / "tuned.json", "--report",
               folder / "report.html", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def rendered(chromium, folder):
    """The page as the browser has it, offline."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
               "--virtual-time-budget=2000", "--dump-dom", (folder / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    page = Page()
    page.feed(done.stdout)
    return page


def main():
    adamas, chromium = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        events = tune(adamas, folder)
        page = rendered(chromium, folder)
    shapes = [event for event in events if event["event"] == "shape"]
    assert len(shapes) == 2, events

    headings, *rows = page.tables["summary"]
    assert len(rows) == len(shapes), rows
    for row, shape in zip(rows, shapes):
        cells = dict(zip(headings, row))
        best, default = shape["trials"][shape["best"]], shape["trials"][0]
        assert int(cells["K/V heads"]) == shape["kv_heads"], cells
        assert abs(float(cells["tuned us"]) - best["us"]) < 0.006, (cells, best)
        assert abs(float(cells["default us"]) - default["us"]) < 0.006, (cells, default)
        assert abs(float(cells["speed-up"].rstrip("x")) - default["us"] / best["us"]) < 0.0006, cells
        assert int(cells["trials"]) == len(shape["trials"]), cells

    timed = sum("us" in trial for shape in shapes for trial in shape["trials"])
    assert page.shapes["roofline", "circle"] == timed, (page.shapes, timed)
    assert page.shapes["heat", "rect"] == len(shapes), page.shapes
    for shape in shapes:
        gain = shape["trials"][0]["us"] / shape["trials"][shape["best"]]["us"]
        assert ("heat", f"{gain:.2f}x") in page.texts, (gain, page.texts)
    assert page.shapes["sensitivity", "rect"] == len(page.tables["sensitivity"]) - len(shapes), page.shapes
    print(f"{len(shapes)} shapes, {timed} timed candidates: the page shows what was measured")


if __name__ == "__main__":
    main()
