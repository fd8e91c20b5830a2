#!/usr/bin/env bash
# recipes/pipeline.sh NAME [PROGRAM]: the data of a post-training pipeline, its run in runs/NAME, and how good its models are.
#   r1_zero  reinforcement learning from a base        r1        cold start, RL, rejection sampling, SFT, RL
#   hybrid   one model, thinking or not                v32       specialists, distillation, mixed RL
#   speciale reasoning only, weak length penalty       judge     a judge by fine-tuning, and a policy that it rewards
#   verifiers programs in the sandbox, fractions by value in a worker process
# r1 begins with the base of r1_zero, speciale with r1. To be run from the root of the repository.
set -euo pipefail
name=${1:?name of a pipeline: r1_zero, r1, hybrid, v32, speciale, judge or verifiers}
fathom=${2:-build/fathom}
run=runs/$name
tokenizer=$run/tokenizer.json
case $name in r1 | speciale) tokenizer=runs/r1_zero/tokenizer.json ;; esac
mkdir -p "$run"

corpus() {  # FOLDER, options: chats in runs/NAME/FOLDER
  local folder=$1
  shift
  "$fathom" data corpus --output "$run/$folder" --documents 0 --held-out-problems 0 "$@"
}
tokens() {  # SIZE, COUNT, files: the tokenizer
  "$fathom" data tokenizer --output "$tokenizer" --individual-digits --vocab-size "$1" --min-frequency "$2" --inputs "$3"
}
pack() {  # SHARDS, files, options
  local shards=$1 files=$2
  shift 2
  "$fathom" data pack --inputs "$files" --tokenizer "$tokenizer" --output "$run/shards/$shards" "$@"
}
solve() {  # MODEL, options: over 1000 held-out problems
  local model=$1
  shift
  printf '%-12s ' "$model"
  "$fathom" solve "$run/models/$model" --problems "$problems" --language digits --eval-problems 1000 \
    --max-response-tokens 110 "$@"
}

problems=mod10:1-2
noise=(--wrong-step-share 0.1 --second-digits-share 0.3)
case $name in
  r1_zero)
    corpus base --families mod10:1-2 --chat-records 30000 --thinking-share 0.3 "${noise[@]}"
    tokens 284 50 "$run/base/sft.jsonl"
    pack base "$run/base/sft.jsonl" --learn-mode
    ;;
  r1)
    corpus cold --families mod10:1-2 --chat-records 400 --thinking-share 1 --seed 11
    corpus direct --families mod10:1-2 --chat-records 1000 --thinking-share 0 --seed 12
    for part in cold direct; do pack $part "$run/$part/sft.jsonl"; done
    ;;
  hybrid)
    problems=addition:1-2
    corpus both --families addition:1 --chat-records 14000 --thinking-share 0.5 --seed 13
    corpus long --families addition:2 --chat-records 8000 --thinking-share 1 --seed 14
    tokens 288 100000 "$run/both/sft.jsonl"
    for part in both long; do pack $part "$run/$part/sft.jsonl"; done
    ;;
  speciale)
    problems=mod10:3-5
    corpus long --families mod10:2-5 --chat-records 12000 --thinking-share 1 --seed 14
    pack long "$run/long/sft.jsonl"
    ;;
  v32)
    problems=mod10:1-2,countdown:1,sort_letters:1-2
    corpus chains --families mod10:1-2 --chat-records 20000 --thinking-share 0.3 "${noise[@]}"
    corpus others --families sort_letters:1-2,countdown:1 --chat-records 30000 --thinking-share 0.4 --seed 2
    corpus direct --families "$problems" --chat-records 600 --thinking-share 0 --seed 12
    both=$run/chains/sft.jsonl,$run/others/sft.jsonl
    tokens 320 400 "$both"
    pack base "$both" --learn-mode
    pack direct "$run/direct/sft.jsonl"
    ;;
  judge)
    problems=$run/marks/held_out.jsonl
    "$fathom" data marks --output "$run/marks" --family sort_letters:2-3 --records 10000
    corpus answers --families sort_letters:2-3 --chat-records 14000 --thinking-share 0
    both=$run/marks/marks.jsonl,$run/answers/sft.jsonl
    tokens 512 1000 "$both"
    pack base "$both"
    ;;
  verifiers)
    corpus code --families python:1 --chat-records 20000 --thinking-share 0 --wrong-step-share 0.3
    corpus math --families fractions:1-2 --chat-records 20000 --thinking-share 1 --seed 2
    both=$run/code/sft.jsonl,$run/math/sft.jsonl
    tokens 640 50 "$both"
    pack base "$both"
    ;;
  *)
    echo "no pipeline is called $name" >&2
    exit 2
    ;;
esac

"$fathom" train "recipes/$name.toml" --run "$run" --tokenizer "$tokenizer"

echo "held-out problems, sampled at temperature 1"
case $name in
  r1_zero) for model in base zero; do solve $model --choose-mode --eval-samples 8; done ;;
  r1) for model in cold reasoning sft all opd; do solve $model; done ;;
  hybrid) for share in 1 0; do for model in sft both; do solve $model --thinking-share $share; done; done ;;
  speciale) for model in cold long; do solve $model; done ;;
  judge)
    judge=$run/models/base
    for model in base judged exact sft; do
      solve $model --thinking-share 0 --rewards rubric --judge "$judge" --judge-max-tokens 60 | tail -1
    done
    ;;
  verifiers)
    problems=python:1
    for model in base code; do solve $model --thinking-share 0; done
    problems=fractions:1-2
    for model in base math; do solve $model; done
    ;;
  v32) for model in base math search strings distilled mixed; do solve $model; done ;;
esac
"$fathom" report "$run"
