#!/usr/bin/env python3
"""checkpoints.py PROGRAM: torn files, full disks and used folders are clear errors, and nothing that was saved is lost."""
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

from run import Nano, checkpoints, difference, expect, failures, rubbish


def files_of(checkpoint):
    return [p for p in sorted(checkpoint.rglob("*")) if p.is_file()]


def torn(nano, alone, temp):
    """Each file of the newest checkpoint cut, changed or missing: named, passed over, and the run ends as if nothing was."""
    names = [p.relative_to(alone) for p in files_of(checkpoints(alone)[-1])]
    expect("a checkpoint has at least five files", len(names) >= 5)
    for i, name in enumerate(names):
        for how in ["cut", "flipped", "missing"]:
            if how == "missing" and name.name == "MANIFEST.json":
                continue  # then it is an unfinished checkpoint
            run = temp / "torn"
            shutil.copytree(alone, run)
            data = (run / name).read_bytes()
            place = len(data) * (i + 1) // (len(names) + 1)
            if how == "cut":
                (run / name).write_bytes(data[:place])
            elif how == "flipped":
                (run / name).write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1:])
            else:
                (run / name).unlink()
            code, said = nano.train(run, "--resume")
            wanted = str(name.relative_to(name.parts[0] + "/" + name.parts[1]))
            if name.name != "MANIFEST.json":
                expect(f"{name} {how}: expected it to be named", f"{name.parts[1]}: {wanted}" in said, said)
            expect(f"{name} {how}: expected a note on {name.parts[1]}", f"{name.parts[1]}: " in said, said)
            expect(f"{name} {how}: expected success", code == 0, said)
            found = difference(alone, run)
            expect(f"{name} {how}: {found}", found is None)
            shutil.rmtree(run)


def limited(bytes_):
    def set_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    return set_limit


def no_room(nano, alone, temp):
    """No file may grow to the size of the weights: the checkpoint fails, the one before it stays."""
    run = temp / "limited"
    shutil.copytree(alone, run)
    shutil.rmtree(checkpoints(run)[-1])
    before = {p: p.read_bytes() for p in files_of(checkpoints(run)[-1])}
    size = (checkpoints(run)[-1] / "model/model.safetensors").stat().st_size
    code, said = nano.train(run, "--resume", preexec_fn=limited(size - 1))
    expect("a file limit: expected exit code 1 and a message", code == 1 and "error: " in said and
           f"the checkpoint of step {int(checkpoints(alone)[-1].name[5:])} could not be written" in said, f"exit code {code}: {said}")
    expect("a file limit: nothing is left over", rubbish(run) == [], str(rubbish(run)))
    expect("a file limit: the earlier checkpoint is as it was", all(p.read_bytes() == b for p, b in before.items()))
    code, said = nano.train(run, "--resume")
    expect(f"after a file limit: {difference(alone, run)}", code == 0 and difference(alone, run) is None, said)
    shutil.rmtree(run)


def full_disk(nano, alone, temp):
    """The same on a disk that is really full, where the test may mount one."""
    disk = temp / "disk"
    disk.mkdir()
    one = sum(p.stat().st_size for p in files_of(checkpoints(alone)[-1]))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(2.4 * one) + 400_000}", "tmpfs", str(disk)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        print("no permission to mount a small disk: the test of a full one is left out")
        return
    try:
        run = disk / "run"
        code, said = nano.train(run)
        expect("a full disk: expected exit code 1 and a message", code == 1 and "error: " in said and
               ("could not be written" in said or "full" in said), f"exit code {code}: {said}")
        expect("a full disk: nothing is left over", rubbish(run) == [], str(rubbish(run)))
        expect("a full disk: an earlier checkpoint is there", len(checkpoints(run)) >= 1)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        code, said = nano.train(run, "--resume")
        expect(f"after a full disk: {difference(alone, run)}", code == 0 and difference(alone, run) is None, said)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def used_folders(nano, alone, temp):
    before = {p: p.stat().st_mtime_ns for p in alone.rglob("*") if p.is_file()}
    code, said = nano.train(alone)
    expect("a used folder: expected a refusal", code == 1 and "expected a folder without a run" in said, said)
    run = temp / "other"
    shutil.copytree(alone / "checkpoints", run / "checkpoints")
    code, said = nano.train(run)
    expect("checkpoints without metrics: expected a refusal", code == 1 and "found checkpoints" in said, said)
    recipe = nano.recipe
    nano.recipe = temp / "wide.toml"
    nano.recipe.write_text(recipe.read_text().replace("hidden_size = 32", "hidden_size = 48"))
    code, said = nano.train(run, "--resume")
    expect("another model: expected a refusal", code == 1 and "found another config.json" in said, said)
    nano.recipe = temp / "small.toml"
    nano.recipe.write_text(recipe.read_text().replace("vocab_size = 320", "vocab_size = 300"))
    code, said = nano.train(temp / "small")
    expect("another vocabulary: expected a refusal", code == 1 and "vocab_size 300" in said, said)
    nano.recipe = recipe
    expect("a used folder is untouched", before == {p: p.stat().st_mtime_ns for p in alone.rglob("*") if p.is_file()})
    for c in checkpoints(run):  # nothing usable: named, and the run starts anew
        (c / "state.json").write_text("{}")
    code, said = nano.train(run, "--resume")
    expect(f"no usable checkpoint: {difference(alone, run)}", code == 0 and "starts anew" in said and
           said.count("state.json") == 2 and difference(alone, run) is None, said)


with tempfile.TemporaryDirectory() as temp:
    temp = pathlib.Path(temp)
    nano = Nano(sys.argv[1], temp)
    alone = temp / "alone"
    code, said = nano.train(alone)
    expect("an undisturbed run", code == 0 and not rubbish(alone), said)
    code, said = nano.train(alone, "--resume")
    expect("resuming a finished run changes nothing", code == 0 and len(checkpoints(alone)) == 2, said)
    torn(nano, alone, temp)
    no_room(nano, alone, temp)
    full_disk(nano, alone, temp)
    used_folders(nano, alone, temp)
sys.exit(len(failures) > 0)
