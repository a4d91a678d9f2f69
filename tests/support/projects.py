"""Small projects for tests: specs in a temporary folder, data and encoder so small that a leaf takes a second."""

from __future__ import annotations

from pathlib import Path

PROFILE = '''
suite = "../suites/tiny.toml"

[encoder]
type = "minbert"
init = "scratch"
width = 16
layers = 1
attention_heads = 2
vocabulary = 200
dropout = 0.1

[optimizer]
type = "adamw"
lr = 1e-3

[train]
epochs = 2
batch_size = 8

[heads.paraphrase]
type = "pair"
features = ["|u-v|", "u*v"]
'''

SUITE = '''
kind = "suite"
type = "demo"
train = 60
dev = 30
test = 20
'''

SUM = '''
kind = "model"

[heads.sentiment]
type = "linear"
loss = "cross_entropy"

[heads.paraphrase]
type = "pair"
loss = "bce"

[heads.similarity]
type = "cosine"
loss = "mse"

[combiner]
type = "sum"

[schedule]
type = "constant"
'''


def write(root: Path, files: dict[str, str]) -> None:
    """Write files below a folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def project(root: Path, **specs: str) -> Path:
    """Make a project with the specs `specs/NAME.toml` and return its folder; `sum` is always there."""
    files = {"specs/profiles/demo.toml": PROFILE, "specs/suites/tiny.toml": SUITE, "specs/sum.toml": SUM}
    write(root, files | {f"specs/{name}.toml": text for name, text in specs.items()})
    return root
