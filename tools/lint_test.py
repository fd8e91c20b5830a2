#!/usr/bin/env python3
"""Fails unless lint.py finds each planted fault, and nothing in clean files."""
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import lint

HEADER = "// What this is.\n#pragma once\n"
UNFINISHED = "TO" + "DO"

CASES = [
    ("fathom/base/a.h", HEADER, None),
    ("fathom/base/a.h", "// What this is.\n", "#pragma once"),
    ("fathom/base/a.h", "#pragma once\n", "says what the file is"),
    ("fathom/base/a.h", HEADER + "#include <iostream>\n", "<iostream> does not belong"),
    ("fathom/base/a.h", HEADER + "#include <rapidjson/document.h>\n", "does not belong"),
    ("fathom/kernels/cpu/simd/a-inl.h", HEADER + "#include <hwy/highway.h>\n", None),
    ("fathom/base/a.cpp", "#include <iostream>\n", None),
    ("fathom/base/a.cpp", "x\n" * lint.MAX_LINES, None),
    ("fathom/base/a.cpp", "x\n" * (lint.MAX_LINES + 1), "split it by idea"),
    ("fathom/base/a.cpp", f"// {UNFINISHED}: later\n", "without an issue number"),
    ("fathom/base/a.cpp", f"// {UNFINISHED}(#12): later\n", None),
    ("fathom/base/a.cpp", "std::abort();\n", "never ends the process"),
    ("fathom/base/a.cpp", 'fmt::print("x");\n', "never prints"),
    ("fathom/base/a_test.cpp", 'fmt::print("x");\n', None),
    ("fathom/cli/a.cpp", 'fmt::print("x");\n', None),
    ("fathom/base/a.cpp", "snprintf(x, 3);\n", None),
    ("fathom/base/a.cpp", 'auto x = "\u00e9";\n', "ASCII"),
    ("fathom/base/a_test.cpp", 'auto x = "\u00e9";\n', None),
    ("docs/a.md", "see " + "/home/" + "me/x\n", "somebody's machine"),
]

failed = 0
for name, text, want in CASES:
    found = [reason for _, reason in lint.check_file(name, text)]
    if (want is None) != (not found) or (want and not any(want in reason for reason in found)):
        print(f"{name} {text[:60]!r}: expected {want or 'nothing'}, found {found}")
        failed += 1

done = subprocess.run([sys.executable, lint.__file__, "--no-such-folder"], capture_output=True, text=True)
if done.returncode == 0:
    print("lint.py succeeds on a folder that does not exist")
    failed += 1
sys.exit(failed > 0)
