"""checkpoint.py PROGRAM: the commands that make and look at checkpoint folders, on synthetic ones."""
import json
import os
import subprocess
import sys
import tempfile

PROGRAM = sys.argv[1]
failures = 0


def run(*words, code=0, out="", err=""):
    """Standard output of the command; checks the exit code and texts on both streams."""
    global failures
    got = subprocess.run([PROGRAM, *words], capture_output=True)
    text, message = got.stdout.decode(), got.stderr.decode()
    if got.returncode != code or out not in text or err not in message:
        failures += 1
        print(f"{words}: expected exit code {code}, {out!r} and {err!r}; came {got.returncode}:\n{text}{message}")
    return text


def expect(condition, what):
    global failures
    if not condition:
        failures += 1
        print(what)


def synth(root):
    """Folders of every form; returns their paths."""
    config = json.load(open("tests/golden/v32-tiny-fp8/config.json"))
    config.update(vocab_size=320, unheard_of=3)
    shape = os.path.join(root, "shape.json")
    json.dump(config, open(shape, "w"))
    folders = {}
    for form in ("f32", "bf16", "fp8"):
        folders[form] = os.path.join(root, form)
        run("synth-checkpoint", "--config", shape, "--out", folders[form], "--dtype", form, "--max-shard-bytes", "4000000",
            out="written")
        expect(os.path.exists(os.path.join(folders[form], "tokenizer.json")), f"{form}: no tokenizer")
        first = run("generate", folders[form], "--prompt", "2+2?", "--max-tokens", "8", err="8 tokens in")
        expect(first, f"{form}: generated nothing")
    run("synth-checkpoint", "--config", shape, "--out", folders["fp8"], code=1, err="without a checkpoint")
    run("synth-checkpoint", "--config", "s16m", "--out", os.path.join(root, "x"), code=1, err="s15m")
    run("synth-checkpoint", "--config", shape, "--out", os.path.join(root, "x"), "--dtype", "f16", code=2, err="fp8")
    run("synth-checkpoint", "--config", shape, code=2, err="--out")
    cut = os.path.join(root, "cut")
    run("synth-checkpoint", "--config", "tests/configs/glm-5.json", "--out", cut, "--layers", "0", code=1, err="num_hidden_layers")
    return folders


with tempfile.TemporaryDirectory() as root:
    folders = synth(root)
sys.exit(failures > 0)
