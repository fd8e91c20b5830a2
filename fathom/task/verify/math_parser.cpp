// What joins the atoms of an answer: lists, relations, sums, products, powers (math_parser.h).
#include "fathom/task/verify/math_parser.h"

#include "fathom/task/verify/math_units.h"

namespace fathom {

uint32_t MathParser::list() {
  MathJoin join = MathJoin::kComma;
  std::vector<uint32_t> all = items(join);
  return all.size() == 1 ? all[0]
                         : node(Kind::kList, std::move(all), "", static_cast<int64_t>(join));
}

std::vector<uint32_t> MathParser::items(MathJoin& join) {
  std::vector<uint32_t> all = {element()};
  while (true) {
    bool more = take(",") || take(";");
    if (peek().is_word("and") || peek().is_word("or")) {
      join = next().text == "or" ? MathJoin::kOr : MathJoin::kAnd;
      more = true;
    }
    if (!more) return all;
    all.push_back(element());
  }
}

uint32_t MathParser::element() {
  uint32_t first = side();
  if (peek().is(":")) {
    std::vector<uint32_t> parts = {first};
    while (take(":")) parts.push_back(sum());
    return node(Kind::kRatio, std::move(parts));
  }
  std::vector<uint32_t> sides = {first};
  std::string signs;
  while (true) {
    const bool in =
        peek().is_word("in") && (peek(1).is("(") || peek(1).is("[") || peek(1).is("\\{"));
    if (!in && peek().kind != Token::Kind::kRelation) break;
    signs += in ? "i" : peek().text;
    next();
    sides.push_back(side());
  }
  if (signs.empty()) return first;
  if (kind_of(first) == Kind::kText) out_.nodes[first].kind = Kind::kSymbol;  // "area = 5"
  return node(Kind::kRelation, std::move(sides), std::move(signs));
}

uint32_t MathParser::words() {
  std::string text;
  while (peek().kind == Token::Kind::kWord || peek().kind == Token::Kind::kSymbol) {
    if (peek().is_word("and") || peek().is_word("or")) break;
    if (!text.empty()) text += ' ';
    text += next().text;
  }
  const bool letters = std::ranges::any_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || static_cast<unsigned char>(c) > 127;
  });
  if (!letters) fail("an empty place");
  if (text.size() > 100) fail("that many words are no answer");
  return node(Kind::kText, {}, std::move(text));
}

uint32_t MathParser::side() {
  if (peek().kind == Token::Kind::kWord && peek().text.size() > 1) return words();
  uint32_t left = sum();
  while (true) {
    const bool letter = is_collection(left) && peek().kind == Token::Kind::kSymbol &&
                        peek().text == "U" && (peek(1).is("(") || peek(1).is("["));
    Kind kind = Kind::kUnion;
    if (peek().is_command("cap"))
      kind = Kind::kIntersection;
    else if (peek().is_command("setminus"))
      kind = Kind::kWithout;
    else if (!letter && !peek().is_command("cup"))
      break;
    next();
    left = node(kind, {left, sum()});
  }
  return unit_ahead() || scale_ahead(left) ||
                 (peek().kind == Token::Kind::kWord && !peek().is_word("and") &&
                  !peek().is_word("or"))
             ? unit(left)
             : left;
}

// "5 m", "60 m/s": a blank and letters that are units to the end of the element.
bool MathParser::unit_ahead() const {
  constexpr std::string_view kLetters = "msghL";
  if (peek().kind != Token::Kind::kSymbol || !peek().after_blank || at_ == 0 ||
      tokens_[at_ - 1].kind != Token::Kind::kNumber)
    return false;
  for (size_t i = at_; i < tokens_.size(); ++i) {
    const Token& t = tokens_[i];
    if (t.kind == Token::Kind::kEnd || t.is(",")) return true;
    const bool letter = t.kind == Token::Kind::kSymbol && t.text.size() == 1 &&
                        kLetters.find(t.text) != std::string_view::npos;
    if (!letter && t.kind != Token::Kind::kWord && t.kind != Token::Kind::kNumber && !t.is("/") &&
        !t.is("^") && !t.is("*"))
      return false;
  }
  return true;
}

uint32_t MathParser::unit(uint32_t value) {
  std::vector<std::string> parts;
  const auto split = [&](const std::string& text) {
    for (size_t i = 0; i < text.size();) {
      const size_t end = text.find_first_of(" /^{}", i);
      if (end == i) {
        if (text[i] == '/' || text[i] == '^') parts.push_back(text.substr(i, 1));
        ++i;
        continue;
      }
      parts.push_back(text.substr(i, end == std::string::npos ? end : end - i));
      i = end == std::string::npos ? text.size() : end;
    }
  };
  while (true) {
    const Token& t = peek();
    if (t.is_word("and") || t.is_word("or") || (t.is_word("in") && !parts.empty())) break;
    if (t.kind == Token::Kind::kWord)
      split(t.text);
    else if (t.kind == Token::Kind::kSymbol || t.is("/") || t.is("*") || t.is("^") || t.is("-"))
      parts.push_back(t.text);
    else if (t.kind == Token::Kind::kNumber && !parts.empty())
      parts.push_back(t.text);
    else if (!((t.is("{") || t.is("}")) && !parts.empty()))
      break;
    next();
  }
  if (parts.size() > 12) fail("that many words are no unit");
  size_t scales = 0;
  for (; scales < parts.size() && power_of_ten(parts[scales]) > 0; ++scales) {  // "7 million"
    const std::string factor = "1e" + std::to_string(power_of_ten(parts[scales]));
    value = node(Kind::kMultiply, {value, node(Kind::kNumber, {}, factor)});
  }
  parts.erase(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(scales));
  if (parts.empty() && scales > 0) return value;
  MathUnit found;
  if (error_ || !parse_unit(parts, found))
    return fail("what follows the value is no unit"), dummy();
  if (kind_of(value) == Kind::kDegree &&
      (found.name == "celsius^1" || found.name == "fahrenheit^1"))
    value = out_.nodes[value].children[0];
  const uint32_t id = node(Kind::kUnit, {value}, found.name, found.numerator, found.denominator);
  out_.nodes[id].c = found.known ? 1 : 0;
  return id;
}

uint32_t MathParser::sum() {
  std::vector<uint32_t> terms;
  const auto joined = [&] {
    return terms.size() == 1 ? terms[0] : node(Kind::kAdd, std::move(terms));
  };
  while (!error_) {
    const bool first = terms.empty();
    if (peek().is_command("pm") || peek().is_command("mp")) {
      const int64_t side = next().text == "pm" ? 1 : -1;
      const uint32_t right = product();
      terms = first ? std::vector<uint32_t>{node(Kind::kPlusMinus, {right}, "", side)}
                    : std::vector<uint32_t>{node(Kind::kPlusMinus, {joined(), right}, "", side)};
      continue;
    }
    if (take("-"))
      terms.push_back(node(Kind::kNegate, {product()}));
    else if (take("+") || first)
      terms.push_back(product());
    else
      break;
  }
  return error_ ? dummy() : joined();
}

// "1 1/2" and "1\frac{1}{2}" are sums, as people write them.
bool MathParser::mixed_ahead(uint32_t whole) const {
  if (!is_integer(whole) || tokens_[at_ - 1].kind != Token::Kind::kNumber) return false;
  const auto digits = [](const Token& t) {
    return t.kind == Token::Kind::kNumber &&
           t.text.find_first_not_of("0123456789") == std::string::npos;
  };
  return digits(peek()) && peek().after_blank && peek(1).is("/") && digits(peek(2));
}

uint32_t MathParser::product() {
  std::vector<uint32_t> factors = {factor()};
  while (!error_) {
    if (take("*")) {
      factors.push_back(factor());
    } else if (take("/")) {
      factors.push_back(node(Kind::kInverse, {factor()}));
    } else if (mixed_ahead(factors.back())) {
      const uint32_t upper = node(Kind::kNumber, {}, next().text);
      next();  // the slash
      const uint32_t lower = node(Kind::kInverse, {node(Kind::kNumber, {}, next().text)});
      factors.back() =
          node(Kind::kAdd, {factors.back(), node(Kind::kMultiply, {upper, lower})}, "mixed");
    } else if (factor_ahead() && !is_collection(factors.back()) && !scale_ahead(factors.back())) {
      const bool whole = is_integer(factors.back()) && peek().is_command("frac");
      const uint32_t right = factor();
      const MathNode& f = out_.nodes[right];
      const bool fraction = f.kind == Kind::kMultiply && f.text == "frac" &&
                            is_integer(f.children[0]) &&
                            is_integer(out_.nodes[f.children[1]].children[0]);
      if (whole && fraction)
        factors.back() = node(Kind::kAdd, {factors.back(), right}, "mixed");
      else
        factors.push_back(right);
    } else {
      break;
    }
  }
  if (error_) return dummy();
  return factors.size() == 1 ? factors[0] : node(Kind::kMultiply, std::move(factors));
}

// True where a factor may follow without a sign.
bool MathParser::factor_ahead() const {
  const Token& t = peek();
  switch (t.kind) {
    case Token::Kind::kSymbol:
      return !unit_ahead();
    case Token::Kind::kCommand:
      return t.text != "pm" && t.text != "mp" && t.text != "cup" && t.text != "cap" &&
             t.text != "setminus" && t.text != "end" && t.text != "begin" && t.text != "rfloor" &&
             t.text != "rceil" && t.text != "dots" && t.text != "emptyset" && t.text != "circ";
    case Token::Kind::kSign:
      return t.text == "(" || t.text == "[" || t.text == "{" || (t.text == "|" && bars_ == 0);
    default:
      return false;
  }
}

uint32_t MathParser::factor() {
  bool negative = false;
  while (peek().is("-") || peek().is("+")) negative ^= next().text == "-";
  uint32_t value = atom();
  while (!error_) {
    if (peek().is("!")) {
      next();
      const bool twice = peek().is("!") && !peek().after_blank;
      if (twice) next();
      if (twice && peek().is("!")) fail("an unknown kind of factorial");
      value = node(twice ? Kind::kDoubleFactorial : Kind::kFactorial, {value});
    } else if (take("%")) {
      value = node(Kind::kPercent, {value});
    } else if (peek().is_command("circ")) {
      next();
      value = node(Kind::kDegree, {value});
    } else if (take("^")) {
      value = raised(value);
    } else if (take("_")) {
      value = indexed(value);
    } else if (peek().is("'") && kind_of(value) == Kind::kSymbol) {
      out_.nodes[value].text += next().text;
    } else {
      break;
    }
  }
  return negative ? node(Kind::kNegate, {value}) : value;
}

uint32_t MathParser::raised(uint32_t base) {
  const Level level(*this);  // of powers of powers, whose atoms end before
  const bool braces = peek().is("{");
  if (peek(braces ? 1 : 0).is_command("circ")) {
    if (braces) next();
    next();
    if (braces) expect("}");
    return node(Kind::kDegree, {base});
  }
  return node(Kind::kPower, {base, braces ? group() : factor()});
}

uint32_t MathParser::indexed(uint32_t base) {
  const bool braces = peek().is("{");
  const Token& first = peek(braces ? 1 : 0);
  if (kind_of(base) == Kind::kSymbol && first.kind == Token::Kind::kWord) {
    if (braces) next();
    out_.nodes[base].text += "_" + next().text;
    if (braces) expect("}");
    return base;
  }
  const uint32_t index = braces ? group() : atom();
  if (error_) return dummy();
  if (kind_of(base) == Kind::kSymbol) return node(Kind::kApply, {index}, out_.nodes[base].text, 1);
  if (!is_integer(base) || !is_integer(index) || out_.nodes[index].text.size() > 2)
    return fail("an index at something else than a letter"), dummy();
  const int radix = std::stoi(out_.nodes[index].text);
  const std::string& digits = out_.nodes[base].text;
  const bool fits = radix >= 2 && radix <= 36 &&
                    std::ranges::all_of(digits, [&](char c) { return c - '0' < radix; });
  if (!fits) return fail("digits that the base does not have"), dummy();
  return node(Kind::kBaseNumber, {}, digits, radix);
}
namespace {

std::string trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && std::string_view(" \t.;,").find(text.back()) != std::string_view::npos) {
    if (text.ends_with("..") || text.ends_with("\\,") || text.ends_with("\\;") ||
        text.ends_with("\\ "))
      break;
    text.remove_suffix(1);
  }
  return std::string(text);
}

// An answer of words alone: texts and single letters, joined by "and" and "or".
bool parse_words(const std::string& text, const MathParseLimits& limits, MathExpr& out) {
  MathTokens tokens;
  std::string words;
  bool any = false;
  const auto finish = [&] {
    if (words.empty()) return;
    tokens.tokens.push_back(
        {words.size() == 1 ? MathToken::Kind::kSymbol : MathToken::Kind::kWord, words, false, ""});
    any = any || words.size() > 1;
    words.clear();
  };
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (word == "and" || word == "or") {
      finish();
      tokens.tokens.push_back({MathToken::Kind::kWord, word, false, ""});
    } else if (!word.empty()) {
      words += (words.empty() ? "" : " ") + word;
    }
    at = end + 1;
  }
  finish();
  tokens.tokens.emplace_back();
  if (!any) return false;  // letters: formulas
  out = MathParser(std::move(tokens), limits).run();
  return true;
}

}  // namespace

MathExpr parse_math(std::string_view text, MathCommas commas, const MathParseLimits& limits) {
  MathExpr out;
  const auto refuse = [&](const char* why) {
    out.error = why;
    return out;
  };
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) return refuse("the text is too long");
  const MathAscii ascii = math_ascii(text);
  if (ascii.error) return refuse(ascii.error);
  std::string body = trimmed(ascii.text);
  while (body.size() > 4 && body.starts_with("**") && body.ends_with("**"))  // bold
    body = trimmed(std::string_view(body).substr(2, body.size() - 4));
  if (body.empty()) return refuse("the text is empty");
  MathTokens tokens = cut_math(body, commas);
  // A single name that both notations know, "pi", is not a word.
  const bool name =
      !tokens.error && tokens.tokens.size() == 2 && tokens.tokens[0].kind != MathToken::Kind::kWord;
  if (!ascii.words_only || name || !parse_words(body, limits, out))
    out = MathParser(std::move(tokens), limits).run();
  out.hidden_signs = ascii.hidden_signs;
  return out;
}

}  // namespace fathom
