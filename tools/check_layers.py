#!/usr/bin/env python3
"""Fails when a room of fathom/ includes a room that tools/layers.txt does not allow it."""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
lines = [l for l in (root / "tools/layers.txt").read_text().splitlines() if l and l[0] != "#"]
allowed = {room.strip(): below.split() for room, _, below in (l.partition(":") for l in lines)}
bad = 0
for path in sorted((root / "fathom").rglob("*")):
    parts = path.relative_to(root / "fathom").parts
    if path.suffix not in {".h", ".cpp", ".cu", ".cuh"} or len(parts) < 2:
        continue
    room = parts[0]
    if room not in allowed:
        print(f"{path.relative_to(root)}: the room {room} is not in tools/layers.txt")
        bad += 1
        continue
    for number, line in enumerate(path.read_text().splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"fathom/([a-z_]+)/', line)
        if m and m[1] != room and "*" not in allowed[room] and m[1] not in allowed[room]:
            print(f"{path.relative_to(root)}:{number}: {room} may not include {m[1]}")
            bad += 1
sys.exit(bad > 0)
