"""generate.py PROGRAM: `fathom generate` on a golden model with a small tokenizer: streams, repeatability, errors."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

PROGRAM = sys.argv[1]
GOLDEN = "tests/golden/v32-tiny"  # 256 tokens
SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
failures = 0


def write_tokenizer(folder, special):
    """One token for each printable ASCII character, space as the byte-level alphabet writes it."""
    characters = [chr(c) for c in range(33, 127)] + ["\u0120", "\u010a"]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, s in enumerate(special)]
    file = {"version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": level, "post_processor": None,
            "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": {c: i + len(special) for i, c in enumerate(characters)}, "merges": []}}
    with open(os.path.join(folder, "tokenizer.json"), "w") as out:
        json.dump(file, out)


def run(*words, code=0, err=""):
    """Standard output of the command; checks exit code and a text on standard error."""
    global failures
    got = subprocess.run([PROGRAM, "generate", *words], capture_output=True)
    message = got.stderr.decode()
    if got.returncode != code or err not in message:
        failures += 1
        print(f"generate {words}: expected exit code {code} and {err!r}; came {got.returncode}: {message}")
    return got.stdout


def expect(condition, what):
    global failures
    if not condition:
        failures += 1
        print(what)


with tempfile.TemporaryDirectory() as root:
    model = os.path.join(root, "model")
    shutil.copytree(GOLDEN, model)
    ask = [model, "--prompt", "2+2?", "--max-tokens", "12"]
    run(*ask, code=1, err="tokenizer")
    write_tokenizer(model, SPECIAL)

    first = run(*ask, "--seed", "5", err="12 tokens in")
    expect(first.decode(), "generated nothing, or broken UTF-8")
    expect(run(*ask, "--seed", "5", "--threads", "1") == first, "the same seed gave another text")
    expect(run(*ask, "--seed", "6") != first, "another seed gave the same text")
    greedy = run(*ask, "--temperature", "0", "--thinking", "off")
    expect(run(*ask, "--temperature", "0", "--thinking", "off", "--dense"), "dense attention gave no text")
    expect(run(*ask, "--top-k", "1", "--thinking", "off") == greedy, "top-k 1 is not greedy")
    run(*ask, "--thinking", "raw", err="5 prompt tokens")  # the beginning of the sentence and four characters

    numbers = [GOLDEN, "--ids", "5,17,99,3", "--max-tokens", "6", "--temperature", "0"]
    resident = run(*numbers)
    expect(len(resident.splitlines()) == 6, "--ids printed no line for each token")
    streamed = run(*numbers, "--memory", "102.3M", "--stats", "--uncached", err="experts used")
    expect(streamed == resident, "with few experts in memory the tokens or log-probs are others")
    run(*numbers, "--memory", "1K", code=1, err="memory: expected at least 102.")
    run(*numbers, "--memory", "many", code=2, err="8G, 512M")
    copied = os.path.join(root, "packed")
    shutil.copytree(GOLDEN, copied)
    expect(run(copied, *numbers[1:], "--packed") == resident, "--packed changes tokens or log-probs")
    expect(os.path.exists(os.path.join(copied, "packed-none.fmpack")), "--packed stored nothing")
    expect(run(copied, *numbers[1:]) == resident, "packed weights give other tokens or log-probs")
    with open(os.path.join(copied, "packed-none.fmpack"), "ab") as file:
        file.write(b"x")
    run(copied, *numbers[1:], code=1, err="packed-none.fmpack")
    run(GOLDEN, "--ids", "1,x", code=2, err="expected numbers")

    run(*ask, "--thinking", "maybe", code=2, err='expected on, off or raw, found "maybe"')
    run(*ask, "--top-p", "2", code=2, err="top_p: expected a number in (0, 1]")
    run(*ask, "--drafts", "1", code=1, err="no multi-token prediction layer")
    run(os.path.join(root, "absent"), "--prompt", "x", code=1, err="absent")
    write_tokenizer(model, SPECIAL[:2])
    run(*ask, code=1, err="not made for chat")
    run(*ask, "--thinking", "raw")
sys.exit(failures > 0)
