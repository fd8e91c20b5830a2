#!/usr/bin/env python3
"""readme_run.py README.md BUILD_FOLDER: runs every fenced block of the page whose info string ends in `run`.

Each block runs as one `sh -e` script in a temporary folder that sees the repository's files by symbolic links and the
build folder as `build`. Exits 1 when a block fails, or when there is none.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

page = pathlib.Path(sys.argv[1]).resolve()
build = pathlib.Path(sys.argv[2]).resolve()
blocks = [(page.read_text()[:m.start()].count("\n") + 1, m[1])
          for m in re.finditer(r"^```sh run\n(.*?)^```$", page.read_text(), re.M | re.S)]
if not blocks:
    print(f"{page.name} has no fenced block marked `sh run`")
    sys.exit(1)
failed = 0
with tempfile.TemporaryDirectory() as folder:
    here = pathlib.Path(folder)
    for entry in page.parent.iterdir():
        if entry.name not in {"build", ".git"}:
            (here / entry.name).symlink_to(entry)
    (here / "build").symlink_to(build)
    for line, script in blocks:
        done = subprocess.run(["sh", "-e", "-c", script], cwd=here, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            print(f"{page.name}:{line}: exit code {done.returncode}\n{script}{done.stdout}{done.stderr}")
            failed += 1
sys.exit(failed > 0)
