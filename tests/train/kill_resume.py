#!/usr/bin/env python3
"""kill_resume.py PROGRAM [KILLS [SEED]]: a run that is killed at random moments and resumed ends with the bytes and the
curves of a run that was left alone."""
import pathlib
import random
import signal
import sys
import tempfile
import time

from run import Nano, checkpoints, difference, rubbish

kills = int(sys.argv[2]) if len(sys.argv) > 2 else 8
seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.SystemRandom().randrange(10**6)
choose = random.Random(seed)

with tempfile.TemporaryDirectory() as temp:
    temp = pathlib.Path(temp)
    nano = Nano(sys.argv[1], temp)
    begin = time.monotonic()
    code, said = nano.train(temp / "alone")
    whole_s = time.monotonic() - begin
    assert code == 0, said
    assert rubbish(temp / "alone") == []

    killed = temp / "killed"
    last_step = int(checkpoints(temp / "alone")[-1].name[5:])
    places = []

    def newest():
        folder = killed / "checkpoints"
        names = sorted(c.name for c in folder.iterdir()) if folder.exists() else []
        return names[-1] if names else "start"

    for i in range(kills):
        process = nano.start(killed, *(["--resume"] if killed.exists() else []))
        # The moments are spread over all stages: wait for a step, then for a random part of what a few steps take.
        wanted = last_step * i // (kills + 1)
        while process.poll() is None and i > 0 and int((newest() + "_0").split("_")[1][:8]) < wanted:
            time.sleep(0.002)
        time.sleep(choose.uniform(0, whole_s * (0.3 if i == 0 else 0.1)))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, (seed, places, process.returncode, err)
        places.append(newest())
    code, said = nano.train(killed, "--resume")
    assert code == 0, (seed, said)
    found = difference(temp / "alone", killed) or rubbish(killed)
    print(f"killed {kills} times (seed {seed}): {', '.join(places)}")
    assert not found, (seed, found)
