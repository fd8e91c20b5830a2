// Writes random texts and the ids that @huggingface/tokenizers gives them, one JSON object a line.
// Usage: node tokenizer_cases.mjs TOKENIZER_JSON COUNT SEED > cases.jsonl
import fs from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";

const [file, count, seed] = process.argv.slice(2);
const json = JSON.parse(fs.readFileSync(file, "utf8"));
json.post_processor = null; // nothing is added to the text
const tokenizer = new Tokenizer(json, {});

// mulberry32
let state = Number(seed) >>> 0;
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const below = (n) => Math.floor(random() * n);
const pick = (list) => list[below(list.length)];

// Characters whose classes JavaScript and the tokenizer's regular expressions agree on: U+0085 and U+FEFF are blanks to
// only one of them, and scripts that grew lately are left out.
const ranges = [
  [0x20, 0x7e], [0x20, 0x7e], [0x20, 0x7e], [0xa0, 0xac], [0xae, 0xff], [0x100, 0x17f], [0x391, 0x3c9], [0x410, 0x44f],
  [0x5d0, 0x5ea], [0x621, 0x64a], [0x64b, 0x652], [0x660, 0x669], [0x905, 0x939], [0x93e, 0x94d], [0xe01, 0xe3a],
  [0x1f00, 0x1f15], [0x2010, 0x2027], [0x20a0, 0x20bf], [0x2150, 0x2189], [0x2190, 0x21ff], [0x2500, 0x257f],
  [0x3000, 0x3029], [0x3041, 0x3096], [0x30a0, 0x30ff], [0x4e00, 0x9fa5], [0x4e00, 0x9fa5], [0xac00, 0xd7a3],
  [0xff01, 0xff5e], [0x300, 0x36f], [0x1f300, 0x1f5ff], [0x1f600, 0x1f64f], [0x1f3fb, 0x1f3ff], [0x20000, 0x2a6d6],
  [0x200b, 0x200d], [0xe000, 0xe010], [0x1d7ce, 0x1d7ff],
];
const words = [
  "the", "of", "function", "return", "Hello", "world", "don't", "I'm", "naïve", "über", "привет", "世界", "こんにちは", "안녕",
  "12345", "3.14159", "0x1F", "http://example.com/path?x=1", "#include <vector>", "std::move", "snake_case", "CamelCase",
  "<think>", "</think>", "{\"a\": [1, 2]}", "e.g.", "---", "...", "🙂👍🏽", "٣٤٥",
];
const blanks = [" ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\t", "   ", " \n ", "\u00a0", "\u3000", "\u2028", ""];
const markers = json.added_tokens.map((t) => t.content);

function piece() {
  switch (below(6)) {
    case 0: return pick(blanks);
    case 1:
    case 2: return pick(words) + pick(blanks);
    case 3: return random() < 0.05 ? pick(markers) : pick(words);
    default: {
      const [low, high] = pick(ranges);
      let out = "";
      for (let n = 1 + below(4); n > 0; --n) out += String.fromCodePoint(low + below(high - low + 1));
      return random() < 0.2 ? out.repeat(1 + below(5)) : out;
    }
  }
}

let lines = "";
for (let i = 0; i < Number(count); ++i) {
  let text = "";
  for (let n = below(14); n >= 0; --n) text += piece();
  lines += JSON.stringify({ text, ids: tokenizer.encode(text, { add_special_tokens: false }).ids }) + "\n";
  if (lines.length > 1 << 20) {
    fs.writeSync(1, lines);
    lines = "";
  }
}
fs.writeSync(1, lines);
