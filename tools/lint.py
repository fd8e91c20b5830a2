#!/usr/bin/env python3
"""Checks the sources that git knows: formatting, file length, headers that cost too much, words that do not belong.

lint.py [--no-format] [ROOT]. Rules and limits are the constants below; prints path:line: reason, exits 1 on any.
"""
import pathlib
import re
import shutil
import subprocess
import sys

MAX_LINES = 1000
WARN_LINES = 500
# Longer than MAX_LINES, each for a reason: {"path": "reason"}.
LONG_FILES = {}

# Not in headers: what these cost at compile time is paid by every file that includes the header.
HEAVY = re.compile(r'\s*#\s*include\s+<(iostream|regex|filesystem|functional|fmt/format\.h|fmt/ranges\.h|CLI/.*'
                   r'|rapidjson/.*|nlohmann/.*|simdjson.*|toml\+\+/.*|toml\.hpp|sqlite3\.h|hwy/highway\.h)>')
# hwy/highway.h is what a *-inl.h header is for.
HEAVY_ALLOWED = re.compile(r"-inl\.h$")

WORDS = [
    (re.compile(r"\bTODO\b(?!\(#\d+\))"), "TODO without an issue number: write TODO(#12)"),
    (re.compile(r"\b(FIXME|XXX|HACK)\b"), "unfinished work belongs in an issue"),
    (re.compile(r"\b(std::)?(abort|quick_exit|_Exit)\s*\("), "the library never ends the process: throw Error"),
    (re.compile(r"using namespace std\b"), "no using namespace std"),
    (re.compile(r"(^|\s)/(home|root|work|workspace|Users)/\w"), "a path of somebody's machine"),
]
# The library never prints; only cli/ and the programs under tests/ do.
PRINTING = re.compile(r"\bstd::(cout|cerr|puts|printf)\b|\bfmt::print\s*\(|(?<![\w:.>])(printf|puts)\s*\(")
CODE = {".h", ".cpp", ".cu", ".cuh"}
TEXT = CODE | {".py", ".sh", ".md", ".cmake", ".toml", ".txt"}


def tracked(root):
    names = subprocess.run(["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-co", "--exclude-standard"],
                           capture_output=True, text=True, check=True).stdout.split("\n")
    return [root / n for n in names if n and (root / n).is_file()]


def check_file(name, text):
    """Yields (line, reason) for one file; name is relative to the root."""
    path = pathlib.PurePosixPath(name)
    lines = text.splitlines()
    is_code = path.suffix in CODE
    if is_code and len(lines) > MAX_LINES and name not in LONG_FILES:
        yield len(lines), f"{len(lines)} lines, the limit is {MAX_LINES}: split it by idea"
    # Highway includes an -inl.h once for each instruction set, behind a guard of its own.
    if path.suffix == ".h" and not path.name.endswith("-inl.h") and "#pragma once" not in text:
        yield 1, "a header starts with #pragma once"
    if is_code and lines and not path.name.endswith("_test.cpp") and path.suffix == ".h" and not lines[0].startswith("//"):
        yield 1, "the first line of a header says what the file is"
    is_library = path.parts[0] == "fathom" and path.parts[1] != "cli" and not path.name.endswith("_test.cpp")
    for number, line in enumerate(lines, 1):
        if path.suffix == ".h" and not HEAVY_ALLOWED.search(name) and (m := HEAVY.match(line)):
            yield number, f"<{m[1]}> does not belong in a header: forward-declare, or include it in the .cpp"
        if is_code and not line.isascii() and not path.name.endswith("_test.cpp"):
            yield number, "sources are ASCII (tests may quote other scripts): write \\u or \\x escapes"
        if is_code and is_library and PRINTING.search(line):
            yield number, "the library never prints: return the text, or leave it to cli/"
        if "lint" in path.name:
            continue
        for pattern, reason in WORDS:
            if pattern.search(line):
                yield number, reason


def unformatted(files):
    """Yields (name, line) for the first place in each file that clang-format would change."""
    done = subprocess.run(["clang-format", "--dry-run", "--ferror-limit=1", *map(str, files)],
                          capture_output=True, text=True)
    for m in re.finditer(r"^(.*?):(\d+):\d+: warning: code should be clang-formatted", done.stderr, re.M):
        yield m[1], int(m[2])


def main():
    words = sys.argv[1:]
    check_format = "--no-format" not in words
    words = [w for w in words if w != "--no-format"]
    root = pathlib.Path(words[0] if words else pathlib.Path(__file__).resolve().parent.parent).resolve()
    files = [f for f in tracked(root) if f.suffix in TEXT and f.relative_to(root).parts[0] not in {"web", "third_party"}]
    bad = 0
    for f in files:
        name = f.relative_to(root).as_posix()
        text = f.read_text(errors="replace")
        for line, reason in check_file(name, text):
            print(f"{name}:{line}: {reason}")
            bad += 1
        if f.suffix in CODE and WARN_LINES < text.count("\n") <= MAX_LINES:
            print(f"{name}: warning: {text.count(chr(10))} lines; a file is one idea of up to {WARN_LINES}")
    if check_format and shutil.which("clang-format"):
        for name, line in unformatted([f for f in files if f.suffix in CODE]):
            print(f"{pathlib.Path(name).relative_to(root)}:{line}: not formatted: run `make fmt`")
            bad += 1
    elif check_format:
        print("clang-format is not installed: formatting not checked")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
