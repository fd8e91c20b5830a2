"""prefix_cache.py PROGRAM: `fathom generate --prefix-cache`: restarts, kills, a full disk and damaged files change no bit."""
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time

PROGRAM = sys.argv[1]
MODEL = "tests/golden/v32-tiny"
rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
failures = 0


def expect(right, what):
    global failures
    if not right:
        print("FAIL:", what, file=sys.stderr)
        failures += 1


def command(ids, folder, *words):
    kept = ["--prefix-cache", folder] if folder else []
    return [PROGRAM, "generate", MODEL, "--ids", ",".join(map(str, ids)), "--max-tokens", "4", "--temperature", "0",
            "--threads", "1", "--stats", *kept, *words]


def run(ids, folder, *words, limit=None):
    """Standard output, keys known, warnings."""
    def limit_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    got = subprocess.run(command(ids, folder, *words), capture_output=True, text=True,
                         preexec_fn=limit_files if limit else None)
    expect(got.returncode == 0, f"exit code {got.returncode}: {got.stderr}")
    known = [line for line in got.stderr.splitlines() if "keys of" in line]
    return (got.stdout, int(known[0].split("keys of ")[1].split()[0]) if known else -1,
            [line for line in got.stderr.splitlines() if line.startswith("warning:")])


def pages(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".fmpage"))


text = [rng.randrange(256) for _ in range(400)]
with tempfile.TemporaryDirectory() as root:
    folder = os.path.join(root, "keys")
    for words in [(), ("--dense",), ("--cache", "bf16"), ("--cache", "fp8", "--quant", "q8")]:
        want = run(text, None, *words)[0]
        before = len(pages(folder)) if os.path.isdir(folder) else 0
        expect(run(text, folder, *words) == (want, 0, []), f"{words}: a new folder changes the answer")
        expect(len(pages(folder)) == before + 6, f"{words}: expected 6 pages more")
        expect(run(text, folder, *words) == (want, 384, []), f"{words}: after a restart the answer is another one")
        cut = rng.randrange(1, 400)
        other = text[:cut] + [(text[cut] + 1) % 256, 7]
        expect(run(other, folder, *words) == (run(other, None, *words)[0], cut // 64 * 64, []),
               f"{words}: cut at {cut} the answer is another one")

    # Killed while it writes.
    killed = os.path.join(root, "killed")
    want = run(text, None)[0]
    start = time.monotonic()
    run(text, os.path.join(root, "timing"))
    whole_s = time.monotonic() - start
    for _ in range(8):
        process = subprocess.Popen(command(text, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole_s * rng.random())
        process.kill()
        process.wait()
        if os.path.isdir(killed):
            for name in pages(killed)[::2]:
                os.remove(os.path.join(killed, name))
    got = run(text, killed)
    expect(got[0] == want and not got[2], f"after kills the answer is another one: {got}")
    expect(run(text, killed) == (want, 384, []), "after kills the pages are not complete")

    # Files that cannot be written, damaged and foreign ones.
    full = os.path.join(root, "full")
    got = run(text, full, limit=2000)
    expect(got[:2] == (want, 0) and len(got[2]) == 1 and "no more pages are kept" in got[2][0], f"full disk: {got}")
    expect(os.listdir(full) == [], "a full disk keeps pieces of pages")
    victim = os.path.join(killed, rng.choice(pages(killed)))
    with open(victim, "r+b") as file:
        file.seek(rng.randrange(os.path.getsize(victim) // 8) * 8)
        file.write(b"damaged!")
    with open(os.path.join(killed, "README"), "w") as file:
        file.write("no page")
    got = run(text, killed)
    expect(got[0] == want and got[1] < 384, "a damaged page was taken")
    expect(len(got[2]) == 2 and "README" in got[2][0] and os.path.basename(victim) in got[2][1], f"warnings: {got[2]}")
    expect(run(text, killed)[:2] == (want, 384), "the damaged page was not replaced")
    size = os.path.getsize(victim)
    run(text, killed, "--prefix-cache-size", str(3 * size))
    expect(len(pages(killed)) == 3, "the limit of the folder does not hold")
    expect(run(text, killed)[1] == 192, "the folder lost another page than the last ones")
    refused = subprocess.run(command(text, killed, "--prefix-cache-size", "many"), capture_output=True, text=True)
    expect(refused.returncode == 2 and "--prefix-cache-size" in refused.stderr, "a bad size is taken")
sys.exit(failures > 0)
