#!/usr/bin/env python3
"""Fails when README.md or a page of docs/ names a file, a folder or a make target that does not exist."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
targets = set(re.findall(r"^([a-z]+(?: [a-z]+)*):", (root / "Makefile").read_text(), re.M))
targets = {word for line in targets for word in line.split()}
bad = 0
for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
    for number, line in enumerate(page.read_text().splitlines(), 1):
        named = re.findall(r"`((?:fathom|docs|tools|tests|recipes|bench|web)/[\w./-]*)`", line)
        missing = [name for name in named if not re.search(r"[A-Z]{3}", name) and not (root / name).exists()]
        missing += [link for link in re.findall(r"\]\(([\w./-]+\.md)\)", line) if not (page.parent / link).exists()]
        missing += [f"make {t}" for t in re.findall(r"(?:`|^)make ([a-z]+)", line) if t not in targets]
        for name in missing:
            print(f"{page.relative_to(root)}:{number}: {name} does not exist")
            bad += 1
sys.exit(bad > 0)
