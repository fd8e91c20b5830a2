#!/usr/bin/env python3
"""verifiers.py PROGRAM MATH_WORKER: reinforcement learning whose answers are programs that hang, fork, fill memory and disk, or
whose sandboxes are killed from outside; and mathematics whose checking process hangs, dies or cannot be started; a judge that is too late. The rollout
says what happened, the run goes on, and no process and no file is left behind. The answers are right by rote: a model
that has learned one answer to each question by heart."""
import ctypes
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import run as training

SUM = "print(sum(map(int, input().split())))"
PROGRAMS = {
    "right": SUM,
    "wrong": "print(6)",
    "hang": "while True: pass",
    "fork": "import os\nwhile True: os.fork()",
    "crash": "import ctypes\nctypes.string_at(0)",
    "memory": "a = [1]\nwhile True: a += a",
    "disk": "f = open('x', 'w')\nwhile True: f.write('x' * 10000)",
    "flood": "while True: print('x' * 10000)",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\n" + SUM,
}
WANT = {"right": "right", "wrong": "wrong answer", "hang": "time limit", "fork": "time limit|runtime error|memory limit",
        "crash": "runtime error", "memory": "memory limit|runtime error", "disk": "runtime error|time limit",
        "flood": "output limit", "daemon": "right"}
TESTS = [{"input": "1 2 3\n", "expected": "6\n"}, {"input": "\n", "expected": "0\n"}]
LEARN = """
[[stage]]
name = "rote"
data = ["{run}/shards/rote"]
steps = 300
batch_size = 8
seq_len = 96
whole_documents = true
trains = "main"
learning_rate = 5e-3
"""
STAGE = """
[[stage]]
name = "NAME"
from = "BASE/models/rote"
kind = "rl"
steps = 2
prompts = 10
group_size = 2
max_response_tokens = 90
thinking_share = 0
temperature = 0.05
problems = ["TASKS"]
eval_every = 0
learning_rate = 1e-7
min_learning_rate = 1e-7
EXTRA
"""


def check(condition, message):
    if not condition:
        print(message)
        sys.exit(1)


def chat(question, answer):
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})


def children():
    """Processes that the program has left to this one and that still run."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    return [pid for task in os.listdir("/proc/self/task")
            for pid in pathlib.Path(f"/proc/self/task/{task}/children").read_text().split()]


def descendants(pid):
    try:
        found = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [p for child in found for p in [child, *descendants(child)]]


class Run:
    """A stage on top of the model that learned by rote."""

    def __init__(self, nano, head, name, tasks, extra):
        self.nano, self.folder = nano, nano.folder / name
        nano.recipe.write_text(head + STAGE.replace("NAME", name).replace("BASE", str(nano.folder / "base"))
                               .replace("TASKS", str(tasks)).replace("EXTRA", extra))

    def train(self, meddle=None):
        temp = self.nano.folder / "temp"
        temp.mkdir(exist_ok=True)
        env = {**os.environ, "TMPDIR": str(temp)}
        if meddle:  # a leak checker's own process is a child as well, and killing it would hang the program
            env["ASAN_OPTIONS"] = f"{env.get('ASAN_OPTIONS', '')}:detect_leaks=0"
        process = self.nano.start(self.folder, env=env)
        ended = threading.Event()
        thread = threading.Thread(target=meddle or (lambda *_: None), args=(process.pid, ended))
        thread.start()
        try:
            out, err = process.communicate(timeout=300)
        finally:
            ended.set()
            thread.join()
        check(process.returncode == 0, f"{self.folder.name}: exit code {process.returncode}\n{out[-2000:]}{err[-2000:]}")
        time.sleep(0.2)
        check(not children(), f"{self.folder.name}: processes are left: {children()}")
        check(not list(temp.iterdir()), f"{self.folder.name}: files are left: {list(temp.iterdir())}")

    def answers(self):
        """Pairs of the question and what the heading of the answer says."""
        pairs = []
        for step in [1, 2]:
            done = subprocess.run([self.nano.program, "rollouts", self.folder, "--step", str(step), "--most", "0"],
                                  capture_output=True, text=True, check=True)
            question = ""
            for line in done.stdout.splitlines():
                found = re.search(r"<｜User｜>(.*?)<｜Assistant｜>", line)
                question = found.group(1) if found else question
                if line.startswith("-- group"):
                    pairs.append((question, line))
        return pairs


def kill_sandboxes(pid, ended):
    """Kills what the sandbox has started, again and again, once it has shown that it isolates."""
    ended.wait(2)
    while not ended.wait(0.05):
        for child in descendants(pid)[:3]:
            try:
                os.kill(int(child), 9)
            except OSError:
                pass


ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans of the program become children of this test
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    nano = training.Nano(sys.argv[1], folder)
    lines = [chat(name, f"```python\n{text}\n```") for name, text in PROGRAMS.items()] + [chat("half", "2/4")]
    (folder / "rote.jsonl").write_text("\n".join(lines * 40) + "\n")
    subprocess.run([nano.program, "data", "tokenizer", "--inputs", folder / "rote.jsonl", "--output", nano.tokenizer, "--vocab-size",
                    "600", "--min-frequency", "20"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([nano.program, "data", "pack", "--inputs", folder / "rote.jsonl", "--tokenizer", nano.tokenizer, "--output",
                    folder / "base/shards/rote"], check=True, stdout=subprocess.DEVNULL)
    text = nano.recipe.read_text()
    head = text[:text.index("[[stage]]")].replace("vocab_size = 320", "vocab_size = 600").replace("index_topk = 8", "index_topk = 128")
    nano.recipe.write_text(head + LEARN)
    code, said = nano.train(folder / "base")
    check(code == 0, said)

    code_tasks, value_tasks = folder / "code.jsonl", folder / "values.jsonl"
    code_tasks.write_text("".join(json.dumps({"prompt": name, "domain": "code", "code": {"tests": TESTS}}) + "\n"
                                  for name in PROGRAMS))
    value_tasks.write_text(json.dumps({"prompt": "half", "domain": "math", "answer": "1/2"}) + "\n")
    limits = "code_time_s = 0.5\ncode_memory_bytes = 67108864"

    programs = Run(nano, head, "programs", code_tasks, limits)
    programs.train()
    seen = set()
    for question, heading in programs.answers():
        seen.add(question)
        check(re.search(WANT[question], heading), f"{question}: {heading}")
        check(("right, " in heading) == (WANT[question] == "right"), f"{question}: {heading}")
    check(len(seen) >= 7, f"only {seen} were asked")

    killed = Run(nano, head, "killed", code_tasks, limits)
    killed.train(kill_sandboxes)
    stopped = [heading for _, heading in killed.answers() if "unscored" in heading]
    print(f"killed from outside: {len(stopped)} of {len(killed.answers())} without a reward")

    judged_tasks = folder / "judged.jsonl"
    judged_tasks.write_text(json.dumps({"prompt": "half", "rubric": [{"id": "a", "text": "is half"}]}) + "\n")
    judged = Run(nano, head, "judged", judged_tasks,
                 f'rewards = ["rubric"]\njudge = "{folder}/base/models/rote"\njudge_timeout_s = 0')
    judged.train()
    for _, heading in judged.answers():
        check("unscored" in heading and "deadline" in heading, heading)

    for mode, verdict in [("", "right"), ("hang", "the check took too long"), ("crash", "the checking process died"),
                          ("missing", "unscored")]:
        worker = ["/nonexistent"] if mode == "missing" else [sys.argv[2], mode] if mode else [sys.argv[2]]
        deadline_ms = 100 if mode == "hang" else 10000
        value = Run(nano, head, f"values_{mode}", value_tasks,
                    f"math_worker = {json.dumps(worker)}\nmath_deadline_ms = {deadline_ms}")
        value.train()
        for _, heading in value.answers():
            check(verdict in heading, f"{mode}: {heading}")
            check(("reward 1.000" in heading) == (mode == ""), f"{mode}: {heading}")
