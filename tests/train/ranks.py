#!/usr/bin/env python3
"""ranks.py PROGRAM: mpirun with two and three ranks ends in the bytes of one process, all stages, also when the number changes
on resuming; a rank that is killed ends them all with an error, and the run goes on from its checkpoint. Exit code 77: no MPI."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from run import Nano, checkpoints, difference, expect, failures, rubbish

SKIPPED = 77


class Ranks(Nano):
    ranks = 1

    def cut(self):
        """Several passes in every update of reinforcement learning, too."""
        text = self.recipe.read_text()
        assert text.count("group_size = 4") > 0
        self.recipe.write_text(text.replace("group_size = 4", "group_size = 4\nrows_per_pass = 60"))

    def start(self, run, *words, **options):
        """On one rank the plain program."""
        program = self.program
        if self.ranks > 1:
            launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(self.ranks)]
            self.command = launcher + (["--allow-run-as-root"] if os.geteuid() == 0 else []) + [program]
        else:
            self.command = [program]
        return subprocess.Popen([*self.command, "train", self.recipe, "--run", run, "--tokenizer", self.tokenizer,
                                 "--threads", "1", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def children(pid, name):
    """Processes below pid whose program is `name`."""
    out = []
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (p / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and (p / "exe").resolve().name == name:
                out.append(int(p.name))
        except OSError:
            pass
    return sorted(out)


def kill_one(nano, run):
    """Kills the last rank once the first checkpoint is there; exit code and what was said."""
    process = nano.start(run)
    end = time.time() + 120
    while process.poll() is None and time.time() < end and not (run / "checkpoints").is_dir():
        time.sleep(0.05)
    victims = children(process.pid, "fathom")
    expect("two ranks are running", len(victims) == 2)
    if victims:
        os.kill(victims[-1], signal.SIGKILL)
    began = time.time()
    out, err = process.communicate(timeout=60)
    expect("all end within seconds", time.time() - began < 20)
    return process.returncode, out + err


def ppo(program, folder):
    """A reward model, which the first rank trains alone, and a critic beside the policy."""
    folder.mkdir()
    nano = Ranks(program, folder)
    nano.only_ppo()
    nano.cut()
    runs = []
    for nano.ranks in [1, 2]:
        runs.append(folder / f"on{nano.ranks}")
        code, said = nano.train(runs[-1])
        expect(f"PPO on {nano.ranks}", code == 0, said)
    found = difference(*runs)
    expect(f"PPO: {found}", found is None)


def main():
    program = pathlib.Path(sys.argv[1])
    os.environ["ASAN_OPTIONS"] = f"{os.environ.get('ASAN_OPTIONS', '')}:detect_leaks=0"  # MPI keeps memory to the end
    if not shutil.which("mpirun") or not (program.parent / "fathom_mpi.so").exists():
        print("no MPI: nothing is tested")
        return SKIPPED
    with tempfile.TemporaryDirectory() as temp:
        temp = pathlib.Path(temp)
        nano = Ranks(program, temp)
        nano.cut()
        alone = temp / "alone"
        code, said = nano.train(alone)
        expect("one process succeeds", code == 0, said)
        for nano.ranks in [2, 3]:
            run = temp / f"on{nano.ranks}"
            code, said = nano.train(run)
            expect(f"{nano.ranks} ranks succeed", code == 0, said)
            found = difference(alone, run)
            expect(f"{nano.ranks} ranks: {found}", found is None)
            expect("nothing is left over", rubbish(run) == [])

        nano.ranks = 2
        killed = temp / "killed"
        code, said = kill_one(nano, killed)
        expect("a killed rank is an error", code not in (0, None), said)
        expect("a checkpoint is there", len(checkpoints(killed)) > 0)
        nano.ranks = 3
        code, said = nano.train(killed, "--resume")
        expect("three ranks go on where two were", code == 0, said)
        found = difference(alone, killed)
        expect(f"after a kill: {found}", found is None)

        nano.ranks = 2
        code, said = nano.train(alone)
        expect("a used folder is an error on ranks, too", code == 1 and "expected a folder without a run" in said, said)
        ppo(program, temp / "ppo")
        # Ranks that were given different recipes notice.
        other = temp / "other.toml"
        other.write_text(nano.recipe.read_text().replace("hidden_size = ", "hidden_size = 1", 1))
        words = ["--run", temp / "unequal", "--tokenizer", nano.tokenizer, "--threads", "1"]
        launch = nano.command[:-1]
        launch[launch.index("-n"):launch.index("-n") + 2] = []
        command = [*launch, "-n", "1", program, "train", nano.recipe, *words, ":", "-n", "1", program, "train", other, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        expect("unequal ranks end with an error", done.returncode != 0, done.stdout + done.stderr)
        expect("which says so", "do all ranks run the same program" in done.stderr, done.stderr)
    print(f"{len(failures)} failures" if failures else "ok")
    return min(len(failures), 1)


sys.exit(main())
