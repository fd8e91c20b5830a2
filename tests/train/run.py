"""A nano training run for tests: data once, then `fathom train` in any folder, and what must be equal afterwards."""
import pathlib
import sqlite3
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
failures = []  # what was expected and did not hold


def expect(what, ok, said=""):
    if not ok:
        print(f"{what}\n{said}")
        failures.append(what)


# A reward model, PPO with a critic that begins as the reward model, and on-policy distillation.
PPO = """
[[stage]]
name = "scores"
kind = "reward_model"
steps = 5
pair_noise = 0.1
learning_rate = 1e-3
COMMON
[[stage]]
name = "ppo"
kind = "rl"
preset = "ppo_rlhf"
steps = 5
reward_model = "{run}/reward_models/scores"
critic = "{run}/reward_models/scores"
reward_kl_beta = 0.05
gae_lambda = 0.95
minibatches = 2
learning_rate = 1e-3
COMMON
[[stage]]
name = "distil"
kind = "rl"
preset = "opd"
steps = 3
reference = "BASE/models/sft"
learning_rate = 1e-3
COMMON
""".replace("COMMON", """prompts = 3
group_size = 4
max_response_tokens = 16
extra_groups = 2
rewards = ["outcome", "format*0.5", "truncation*0.5"]
problems = ["addition:1-1", "sort_letters:1-2"]
eval_every = 0
checkpoint_every = 2
""")


class Nano:
    def __init__(self, program, folder):
        self.program = str(pathlib.Path(program).resolve())
        self.folder = pathlib.Path(folder)
        f = self.folder
        self.tokenizer = f / "tokenizer.json"
        data = [["corpus", "--output", f / "corpus", "--documents", 200, "--chat-records", 100, "--held-out-problems",
                 10, "--families", "addition:1-2,sort_letters:1-3"],
                ["tokenizer", "--inputs", f / "corpus/pretrain.jsonl", "--output", self.tokenizer, "--vocab-size", 320]]
        data += [["pack", "--inputs", f / f"corpus/{name}.jsonl", "--tokenizer", self.tokenizer, "--output",
                  f / f"shards/{name}"] for name in ["pretrain", "sft"]]
        for words in data:
            subprocess.run([self.program, "data", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
        self.recipe = f / "nano.toml"
        self.recipe.write_text((ROOT / "recipes/nano.toml").read_text().replace("{run}", str(f)))

    def only(self, stages):
        """From now on: these stages, on top of a model that went through the recipe's."""
        base = self.folder / "base"
        code, said = self.train(base)
        assert code == 0, said
        text = self.recipe.read_text()
        head = text[:text.index("[[stage]]")].replace("[model]", f'init = "{base}/models/sft"\n\n[model]')
        self.recipe.write_text(head + stages.replace("BASE", str(base)))

    def only_rl(self, steps):
        text = self.recipe.read_text()
        self.only(text[text.rindex("[[stage]]"):].replace("steps = 6", f"steps = {steps}", 1))

    def only_ppo(self):
        self.only(PPO)

    def start(self, run, *words, **options):
        return subprocess.Popen([self.program, "train", self.recipe, "--run", run, "--tokenizer", self.tokenizer, *words],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def train(self, run, *words, **options):
        """Exit code and everything that was said."""
        process = self.start(run, *words, **options)
        out, err = process.communicate(timeout=300)
        return process.returncode, out + err


def curves(run):
    """All points of all series but those that measure time."""
    with sqlite3.connect(f"file:{run}/metrics.sqlite?mode=ro", uri=True) as db:
        return sorted(db.execute("SELECT name, step, value FROM series WHERE name NOT LIKE 'speed/%' AND name NOT LIKE 'time/%'"))


def rollouts(run):
    """Every record of the rollouts, as bytes."""
    with sqlite3.connect(f"file:{run}/rollouts.sqlite?mode=ro", uri=True) as db:
        return db.execute("SELECT * FROM rollouts ORDER BY step, grp, idx").fetchall()


def checkpoints(run):
    return sorted((pathlib.Path(run) / "checkpoints").iterdir())


def difference(a, b):
    """What differs between two finished runs, or None."""
    weights = sorted(p.relative_to(a) for p in pathlib.Path(a).rglob("*.safetensors")
                     if {"models", "reward_models"} & set(p.parts))
    weights += [checkpoints(a)[-1].relative_to(a) / name for name in ["model/model.safetensors", "optimizer.safetensors"]]
    if len(weights) < 3:
        return f"only {len(weights)} weight files"
    for name in weights:
        if not (b / name).exists():
            return f"{name} is missing"
        if (a / name).read_bytes() != (b / name).read_bytes():
            return f"{name} differs"
    if curves(a) != curves(b):
        return "the curves differ"
    if not rollouts(a) or rollouts(a) != rollouts(b):
        return "the rollouts differ"
    return None


def rubbish(run):
    """Files of interrupted writes, and checkpoints without a manifest."""
    found = [str(p) for p in pathlib.Path(run).rglob("*tmp*")]
    return found + [str(c) for c in checkpoints(run) if not (c / "MANIFEST.json").exists()]
