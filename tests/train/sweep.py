#!/usr/bin/env python3
"""sweep.py PROGRAM: a small sweep, killed with all its processes and called again, leaves the runs of one that was left alone;
what is finished is not run again; stabilisers prints its tables."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from run import Nano

SWEEP = """
recipe = "RECIPE"
learning_rates = [1e-3]
seeds = 1

[[study]]
name = "mask"
curves = ["ratio/mean"]
regimes = [{ name = "p80", top_p = 0.8, lag = 0, extra_groups = 0, minibatches = 1 }]
arms = [
  { name = "off", keep_sampling_mask = false },
  { name = "on", keep_sampling_mask = true, against = "off" },
]

[[study]]
name = "broken"
regimes = [{ name = "only" }]
arms = [{ name = "huge", learning_rate_UNUSED = 1 }]
"""


def runs(folder):
    """What each run left, without the time it took."""
    found = {}
    for path in sorted((folder / "runs").glob("*.json")):
        found[path.name] = json.loads(path.read_text())
        del found[path.name]["cpu_s"]
    return found


with tempfile.TemporaryDirectory() as temp:
    temp = pathlib.Path(temp)
    nano = Nano(sys.argv[1], temp)
    nano.only_rl(steps=4)
    text = SWEEP.replace("RECIPE", str(nano.recipe))
    good, bad = temp / "sweep.toml", temp / "bad.toml"
    good.write_text(text[:text.index('[[study]]\nname = "broken"')])
    bad.write_text(text)

    def start(file, folder, *words):
        return subprocess.Popen([nano.program, "sweep", file, "--run", folder, "--tokenizer", nano.tokenizer, *words],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def sweep(file, folder, *words):
        process = start(file, folder, *words)
        out, err = process.communicate(timeout=300)
        return process.returncode, out + err

    code, said = sweep(bad, temp / "bad")
    assert code == 1 and "broken.only.huge" in said and "learning_rate_UNUSED" in said, said
    assert not (temp / "bad").exists(), "a sweep with a mistake must not begin"

    code, said = sweep(good, temp / "alone", "--tables")
    assert code == 0 and "2 of 2 runs" in said and "| p80 | on |" in said, said
    alone = runs(temp / "alone")
    assert len(alone) == 2, alone.keys()
    ratio = {name.split(".")[2]: run["series"]["ratio/mean"]["value"][0] for name, run in alone.items()}
    assert ratio["on"] == 1 and ratio["off"] < 1, ratio
    page = (temp / "alone/report.html").read_text()
    assert "p80: ratio/mean" in page and "http" not in page.replace("http-equiv", ""), "the page needs nothing else"

    killed = temp / "killed"
    for jobs in ["1", "2"]:
        process = start(good, killed, "--jobs", jobs)
        while process.poll() is None and not list(killed.glob("open/*/rollouts.sqlite")):
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the sweep ended before it could be killed"
    code, said = sweep(good, killed, "--jobs", "2")
    assert code == 0, said
    assert runs(killed) == alone, "a killed sweep differs"
    assert list((killed / "open").iterdir()) == [], "work is left over"

    written = {p: p.stat().st_mtime_ns for p in (killed / "runs").iterdir()}
    code, said = sweep(good, killed)
    assert code == 0 and {p: p.stat().st_mtime_ns for p in (killed / "runs").iterdir()} == written, "a finished run was repeated"

    done = subprocess.run([nano.program, "stabilisers", temp / "base/models/sft", "--policy", temp / "base/models/rl",
                           "--problems", "addition:1-1", "--prompts", "2", "--group-size", "2", "--max-response-tokens", "8"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in ["sampling mask", "kept routing", "gradient through the ratio", "sequence KL"]:
        assert words in done.stdout, done.stdout
