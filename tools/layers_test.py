#!/usr/bin/env python3
"""Plants violations in a copy of a tiny tree and fails unless check_layers.py finds each of them."""
import pathlib
import subprocess
import sys
import tempfile

tools = pathlib.Path(__file__).resolve().parent


def check(files):
    """Exit status and output of check_layers.py on a tree that holds these files."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "tools").mkdir()
        (root / "tools/layers.txt").write_text((tools / "layers.txt").read_text())
        for name, text in files.items():
            path = root / "fathom" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run([sys.executable, tools / "check_layers.py", root], capture_output=True, text=True)
        return done.returncode, done.stdout


CASES = [
    ("allowed", {"ops/a.cpp": '#include "fathom/kernels/kernels.h"\n'}, None),
    ("own room", {"train/a.cpp": '#include "fathom/train/b.h"\n'}, None),
    ("cli sees all", {"cli/a.cpp": '#include "fathom/rl/grpo.h"\n'}, None),
    ("upwards", {"base/a.h": '#pragma once\n#include "fathom/ops/ctx.h"\n'}, "fathom/base/a.h:2: base may not include ops"),
    ("siblings", {"train/a.cpp": '#  include "fathom/infer/engine.h"\n'}, "train may not include infer"),
    ("deeper file", {"task/reward/a.cpp": '#include "fathom/tensor/view.h"\n'}, "task may not include tensor"),
    ("unknown room", {"attic/a.cpp": "\n"}, "the room attic is not in tools/layers.txt"),
]

failed = 0
for name, files, want in CASES:
    status, output = check(files)
    good = status == 0 if want is None else status != 0 and want in output
    if not good:
        print(f"{name}: expected {want or 'no complaint'}, came status {status}: {output.strip()}")
        failed += 1
sys.exit(failed > 0)
