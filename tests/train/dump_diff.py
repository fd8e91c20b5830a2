#!/usr/bin/env python3
"""dump_diff.py PROGRAM: FATHOM_DUMP leaves every forward pass in a file, `fathom diff` finds the first difference; and
the parts of `fathom data` say what is wrong with their arguments."""
import os
import pathlib
import subprocess
import sys
import tempfile

from run import Nano

failures = 0


def expect(what, ok, said=""):
    global failures
    if not ok:
        print(f"{what}\n{said}")
        failures += 1


def command(code, text, *words):
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    expect(f"fathom {' '.join(map(str, words))}: expected exit code {code} and \"{text}\", came {done.returncode}",
           done.returncode == code and text in said, said)


program = str(pathlib.Path(sys.argv[1]).resolve())
with tempfile.TemporaryDirectory() as temp:
    temp = pathlib.Path(temp)
    nano = Nano(program, temp)
    text = nano.recipe.read_text()
    nano.recipe.write_text(text[:text.index("[[stage]]", text.index("[[stage]]") + 1)].replace("steps = 12", "steps = 2"))

    def dumped(name, threads):
        folder = temp / name
        code, said = nano.train(temp / f"run-{name}", "--threads", str(threads),
                                env={**os.environ, "FATHOM_DUMP": str(folder)})
        expect(f"a run with FATHOM_DUMP: exit code {code}", code == 0, said)
        return folder

    one, two = dumped("one", 1), dumped("two", 2)
    passes = sorted(p.name for p in one.iterdir())
    expect("two steps leave at least two passes", len(passes) >= 2 and passes[0] == "pass_000001.safetensors", passes)
    command(0, f"{len(passes)} files are the same", "diff", one, two)
    command(0, "no difference", "diff", one / passes[0], two / passes[0])
    command(1, "hidden.0", "diff", one / passes[0], one / passes[1])
    nano.recipe.write_text(nano.recipe.read_text().replace("learning_rate = 3e-3", "learning_rate = 4e-3"))
    other = dumped("other", 1)
    command(1, passes[-1] + ": hidden.0[0, 0]: ", "diff", one, other)  # the first step runs on the same weights
    command(0, "are the same", "diff", one, other, "--tolerance", "10")
    (other / passes[-1]).unlink()
    command(1, f"{passes[-1]} is absent in", "diff", one, other, "--tolerance", "10")
    command(1, f"{passes[-1]} is absent in", "diff", other, one, "--tolerance", "10")
    command(1, "expected two files or two folders", "diff", one, two / passes[0])
    command(1, "expected *.safetensors files, found none", "diff", temp / "corpus", temp / "corpus")
    command(1, "error", "diff", one / "absent", one / passes[0])
    command(2, "--tolerance: expected >= 0", "diff", one, two, "--tolerance", "-1")
    code, said = nano.train(temp / "again", env={**os.environ, "FATHOM_DUMP": str(one)})
    expect("a folder of another dump is not mixed with", code == 1 and "holds pass_000001" in said, said)

    command(2, "expected one of its parts, found nothing", "data")
    command(2, "did you mean `fathom data pack`?", "data", "pac")
    command(0, "parts:", "data", "--help")
    for part in ["corpus", "tokenizer", "pack"]:
        command(0, f"usage: fathom data {part}", "data", part, "--help")
        command(2, "expected", "data", part)
    command(1, "absent.jsonl", "data", "tokenizer", "--inputs", temp / "absent.jsonl", "--output", temp / "t.json")
    command(2, "--vocab-size: expected", "data", "tokenizer", "--inputs", nano.recipe, "--output", temp / "t.json",
            "--vocab-size", "0")
    command(1, "family", "data", "corpus", "--output", temp / "c", "--families", "additoin")
    command(1, "", "data", "pack", "--inputs", temp / "corpus/pretrain.jsonl", "--output", temp / "shards/pretrain",
            "--tokenizer", nano.tokenizer)  # holds shards already
sys.exit(failures > 0)
