"""The examples run, say what they should, and are short enough to be read."""

import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "tools" / "examples"


def run(name, *options):
    assert len((EXAMPLES / name).read_text().splitlines()) < 100
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_numpy_decode():
    said = run("numpy_decode.py", "--tokens", "1000")
    assert "10 steps over 1000 tokens" in said
    attended, scanned = map(int, re.search(r"attended (\d+) tokens a row of (\d+) scanned", said).groups())
    assert attended == 128 and 1000 <= scanned <= 1010 and "; 0 dense rows" in said


def test_torch_decode():
    pytest.importorskip("torch")
    said = run("torch_decode.py", "--tokens", "600")
    assert "sparse path: yes" in said


def test_readme_snippets_run():
    """The Python of the README; of Hugging Face's it is compiled only, since it fetches a model."""
    readme = (EXAMPLES.parents[1] / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(snippets) == 2
    exec(compile(snippets[0], "README.md", "exec"), {})
    compile(snippets[1], "README.md", "exec")
    assert all(len(snippet.splitlines()) <= 11 for snippet in snippets)
