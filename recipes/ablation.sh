#!/usr/bin/env bash
# recipes/ablation.sh [PROGRAM]: the models, the tables of mechanisms and the sweeps of docs/ablations.md, in runs/ablation*. Needs the
# base of `recipes/pipeline.sh r1_zero`. To be run from the root of the repository; what is finished is not done again.
set -euo pipefail
fathom=${1:-build/fathom}
jobs=${JOBS:-1}
zero=runs/r1_zero
tokenizer=$zero/tokenizer.json

corpus() {  # RUN, FOLDER, options: chats, packed so that the mode is learned too
  local run=$1 folder=$2
  shift 2
  "$fathom" data corpus --output "$run/$folder" --documents 0 --held-out-problems 0 "$@"
  "$fathom" data pack --inputs "$run/$folder/sft.jsonl" --tokenizer "$tokenizer" --output "$run/shards/$folder" --learn-mode
}
train() {  # RECIPE, RUN
  "$fathom" train "$1" --run "$2" --tokenizer "$tokenizer"
}

models=runs/ablation_models
if [ ! -d $models/models/cold ]; then
  corpus $models direct --families mod10:1-2 --chat-records 30000 --thinking-share 0
  corpus $models cold --families mod10:2-3 --chat-records 1000 --thinking-share 1 --seed 11
  train recipes/ablation_models.toml $models
fi
if [ ! -d runs/ablation/models/base ]; then
  mkdir -p runs/ablation/shards
  cp -r $zero/shards/base runs/ablation/shards/
  train recipes/ablation_experts_base.toml runs/ablation
fi

measure="--problems mod10:1-2 --choose-mode --max-response-tokens 40 --prompts 200"
# shellcheck disable=SC2086  # words
"$fathom" stabilisers $zero/models/base --policy $zero/models/zero $measure
# shellcheck disable=SC2086
"$fathom" stabilisers runs/ablation/models/base $measure
for name in ablation ablation_pipelines; do
  "$fathom" sweep "recipes/$name.toml" --run "runs/sweep_$name" --tokenizer "$tokenizer" --jobs "$jobs" --tables
done
