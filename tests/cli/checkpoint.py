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
        run("synth-checkpoint", "--config", shape, "--out", folders[form], "--dtype", form, "--max-shard-bytes", "1000000",
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


def inspect(root, folders):
    run("inspect", folders["fp8"], out="F8_E4M3")
    shown = json.loads(run("inspect", "tests/configs/deepseek-v3.2.json", "--json", "--context", "131072", "--batch", "2"))
    expect(shown["parameters"]["total"] == 671877944064, f"V3.2 has {shown['parameters']}")
    cost = shown["contexts"][0]
    expect(cost["cache_fp8_bytes"] == 2 * 131072 * 62 * 788, f"cache {cost}")
    expect(cost["sparse"]["indexer"] == 61 * 16384 * 131072, f"indexer {cost}")
    expect(shown["sparse_break_even"] == 2176, "break-even")
    expect(shown["experts_bytes"] == 58 * 256 * 3 * 7168 * 2048, f"experts {shown['experts_bytes']}")
    all_there, least = shown["streams"][-1], shown["streams"][0]
    expect(all_there["read_bytes"] == 0 and least["read_bytes"] > 15e9, f"streams {shown['streams']}")
    run("inspect", "tests/configs/deepseek-v3.2.json", "--disk", "fast", code=2, err="--disk: expected an amount")
    stored = json.loads(run("inspect", folders["bf16"], "--json"))
    expect(sum(g["size_bytes"] for g in stored["tensors"]) == stored["size_bytes"], "groups do not add up")
    run("inspect", os.path.join(root, "shape.json"), out="unheard_of")
    run("inspect", "s15m", out="19.45 M")
    run("inspect", "s15m", "--batch", "0", code=2, err="--batch")
    run("inspect", os.path.join(root, "absent"), code=1, err="absent")


def verify(root, folders):
    sums = run("verify", folders["fp8"], out="0 defects")
    listed = os.path.join(root, "sums")
    open(listed, "w").write(sums)
    run("verify", folders["fp8"], "--against", listed, out="0 defects")
    run("verify", folders["bf16"], "--against", listed, code=1, out="expected SHA-256")
    shard = sorted(n for n in os.listdir(folders["f32"]) if n.endswith(".safetensors"))[0]
    with open(os.path.join(folders["f32"], shard), "r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x00\x00\x80\x7f")
    run("verify", folders["f32"], "--no-checksums", code=1, out="expected finite numbers, found inf at")
    os.remove(os.path.join(folders["f32"], shard))
    run("verify", folders["f32"], code=1, out=f"defect: model.safetensors.index.json: {shard}")
    run("inspect", folders["f32"], code=1, err=shard)
    run("verify", os.path.join(root, "absent"), code=1, err="absent")


def quantize(root, folders):
    for quant in ("q8", "q4"):
        out = folders[quant] = os.path.join(root, quant)
        run("quantize", folders["bf16"], out, "--quant", quant, out="worst of all")
        words = ["--ids", "5,6,7", "--max-tokens", "6"]
        at_load = run("generate", folders["bf16"], "--quant", quant, *words, err="worst of all")
        written = run("generate", out, *words)
        expect(at_load == written and len(written.split("\n")) == 7, f"{quant}: {at_load} and {written}")
        run("generate", out, "--prompt", "2+2?", "--max-tokens", "4", err="4 tokens in")
        run("verify", out, out="0 defects")
        run("inspect", out, out="U8" if quant == "q4" else "I8")
        run("quantize", out, os.path.join(root, "again"), code=1, err="not coded yet")
        run("quantize", folders["bf16"], out, code=1, err="without a checkpoint")
    run("generate", out, "--quant", "q8", "--ids", "5", code=1, err="expected a model of q8")
    run("generate", out, "--quant", "q5", "--ids", "5", code=2, err="--quant")
    run("quantize", folders["bf16"], os.path.join(root, "none"), "--quant", "none", code=2, err="q8 or q4")


def tokenize(root, folders):
    text = "<｜User｜>h\u00e9 2+2\n"
    shown = json.loads(run("tokenize", folders["bf16"], "--text", text, "--json"))
    expect(shown["round_trip"] and shown["num_tokens"] == len(text.encode()), f"plain text: {shown}")
    shown = json.loads(run("tokenize", folders["bf16"], "--text", text, "--json", "--parse-added"))
    expect(shown["tokens"][0] == {"id": 3, "text": "<｜User｜>", "num_bytes": 12, "added": True}, f"marks: {shown}")
    file = os.path.join(root, "text")
    open(file, "w").write("abc")
    expect(run("tokenize", folders["bf16"], "--file", file, "--ids") == "108 109 110\n", "ids of abc")
    run("tokenize", folders["bf16"], "--file", file, out="joined again: the same text")
    open(file, "wb").write(b"ab\xff")
    run("tokenize", folders["bf16"], "--file", file, code=1, err="UTF-8")
    run("tokenize", root, "--text", "x", code=1, err="tokenizer")
    run("tokenize", root, "--text", "x", "--file", file, code=2, err="both")


def golden(root, folders):
    cases = os.path.join(root, "cases.jsonl")
    good = {"text": "<｜User｜>abc", "ids": [3, 108, 109, 110]}
    open(cases, "w").write(json.dumps(good) + "\n")
    run("golden", cases, "--tokenizer", folders["bf16"], out="1 of 1 cases pass")
    run("golden", cases, code=1, err="--tokenizer")
    open(cases, "a").write(json.dumps(good | {"ids": [3, 108, 109]}) + "\n")
    run("golden", cases, "--tokenizer", folders["bf16"], code=1, out="line 2: ")
    files = ["tests/golden/encoding/encode.jsonl", "tests/golden/encoding/parse.jsonl"]
    run("golden", *files, out="cases pass")
    row = json.loads(open(files[0]).readline())
    open(cases, "w").write(json.dumps(row | {"expected": row["expected"] + "x"}) + "\n")
    run("golden", cases, code=1, out="0 of 1 cases pass")
    source = os.path.join(root, "encoding_dsv32.py")
    open(source, "w").write("nothing = 1\n")
    run("golden", files[0], "--encoding-source", source, code=1, err="## Tools")
    # The words of a checkpoint stand where the cases have their places.
    open(source, "w").write('T = """## Tools\n<{dsml_token}x>\n<functions>\n{tool_schemas}\n"""\n'
                            'F = "## Response Format:\\n\\nAs {schema}"\n')
    run("golden", files[0], files[1], "--encoding-source", source, out="110 of 110 cases pass")
    open(cases, "w").write("{}\n")
    run("golden", cases, code=1, err="neither")


def bench_peer(root, folder):
    """A comparison with other programs: their figures by depth and kind, in turn with ours; what they may do wrong."""
    lines, page, log = (os.path.join(root, name) for name in ("peer.jsonl", "peer.html", "peer.log"))
    other = os.path.join(root, "other.sh")
    # As llama-bench prints, with other figures in each run: the middle one of three is the result.
    open(other, "w").write(f"""echo "$*" >>{log}
n=$(wc -l <{log})
echo 'loading a model' >&2
echo '| model | threads | test | t/s |'
echo '| --- | ---: | ---: | ---: |'
echo "| x 1B Q8_0 | $1 | pp$2 @ d$3 | $((n % 3 + 20)).50 ± 0.10 |"
echo "| x 1B Q8_0 | $1 | tg32 @ d$3 | $((n % 3 + 10)).25 ± 0.10 |"
""")
    quick = ["--types", "f32", "--threads", "1", "--prefill", "8", "--seconds", "0.01", "--json", lines, "--plot", page]
    text = run("bench", "infer", folder, *quick, "--depths", "16,100", "--rounds", "3",
               "--peer", f"sh {other} {{threads}} {{prefill}} {{depth}}", out="prefill 8 21.5 tok/s, ratio")
    expect("decode 11.2 tok/s" in text and "loading" not in text, f"peer: {text}")
    expect(open(log).read() == "1 8 16\n" * 3 + "1 8 100\n" * 3, "peer: not run in every round of every depth")
    rows = [json.loads(line) for line in open(lines)]
    for r in rows:
        expect(r["peer_prefill_tokens_per_s"] == 21.5 and r["peer_decode_tokens_per_s"] == 11.25, f"peer: {r}")
        for what in ("prefill", "decode"):
            ratio = r[f"{what}_tokens_per_s"] / r[f"peer_{what}_tokens_per_s"]
            expect(abs(r[f"{what}_ratio"] / ratio - 1) < 1e-9 and other in r["peer"], f"peer: {r}")
    chart = open(page).read()
    expect(len(rows) == 2 and chart.count("peer, 1 thread") >= 2 and "21.5" in chart, "peer: not in the plots and the table")
    one = [*quick, "--depths", "100"]
    run("bench", "infer", folder, *one, "--peer", "echo tokens/s median {depth}", out="peer: decode 100.0 tok/s")
    table = "echo '| PP | TG | B | N_KV | S_PP t/s | S_TG t/s |'; echo '| {depth} | 4 | {sequences} | 9 | 7 | 30 |'"
    run("bench", "infer", folder, *one, "--sequences", "3", "--peer", table, out="peer: 3 sequences 30.0 tok/s, ratio")
    for peer, message in [("echo nothing", 'came "nothing"'), ("no-such-peer", "not found"), ("echo no model; exit 3", "no model"),
                          (f"sh {other} 1 8 16", "decode at depth 16")]:
        run("bench", "infer", folder, *one, "--peer", peer, code=1, err=message)
    run("bench", "infer", folder, *one, "--peer", "sleep 60", "--peer-seconds", "0.2", code=1, err="--peer-seconds")
    run("bench", "infer", folder, "--peer-seconds", "0", code=2, err="--peer-seconds")
    run("bench", "infer", folder, "--rounds", "0", code=2, err="--rounds")


def bench(root, folders):
    lines, page = os.path.join(root, "bench.jsonl"), os.path.join(root, "bench.html")
    quick = ["--depths", "0,100", "--prefill", "8", "--threads", "1,2", "--seconds", "0.01", "--json", lines, "--plot", page]
    run("bench", "infer", os.path.join(root, "shape.json"), *quick, out="same")
    rows = [json.loads(line) for line in open(lines)]
    expect(len(rows) == 20 and all(r["same_bits"] and r["decode_tokens_per_s"] > 0 for r in rows), f"bench: {rows}")
    expect("<svg" in open(page).read(), "no plot")
    one = ["--types", "f32", "--depths", "100", "--threads", "1", "--prefill", "8", "--seconds", "0.01", "--plot", page]
    run("bench", "infer", folders["fp8"], *quick, "--types", "f32", "--dense", out="stored")
    run("bench", "infer", folders["fp8"], *one, "--sequences", "3", out="3 sequences in a step")
    bench_peer(root, folders["fp8"])
    run("bench", "infer", folders["fp8"], *one, "--busy", "1", out="beside busy processes")
    run("bench", "infer", folders["q4"], *quick, "--cache", "fp8", "--types", "f32", out="cache fp8")
    for form in ("int8", "int8-latent"):
        run("bench", "infer", folders["q4"], *quick, "--cache", form, "--types", "f32", out="cache " + form)
    run("generate", folders["bf16"], "--ids", "5", "--cache", "bf16", "--max-tokens", "3")
    run("generate", folders["bf16"], "--ids", "5", "--cache", "f8", code=2, err="--cache")
    run("bench", "infer", folders["fp8"], *one, "--sequences", "0", code=2, err="--sequences")
    run("bench", "infer", folders["fp8"], "--types", "q9", code=2, err="--types")
    run("bench", "infer", "s16m", code=1, err="s15m")
    run("bench", "tokenizer", folders["f32"], "--text", "README.md,docs/tour.md", "--rounds", "1", out="docs/tour.md")
    run("bench", "tokenizer", folders["f32"], "--rounds", "0", code=2, err="--rounds")
    run("bench", "tokenizer", folders["f32"], "--text", os.path.join(root, "absent"), code=1, err="absent")
    run("bench", "tokenizer", code=2, err="TOKENIZER")


with tempfile.TemporaryDirectory() as root:
    folders = synth(root)
    inspect(root, folders)
    verify(root, folders)
    quantize(root, folders)
    tokenize(root, folders)
    golden(root, folders)
    bench(root, folders)
sys.exit(failures > 0)
