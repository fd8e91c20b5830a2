// Recursive descent from tokens to a tree. After the first error every token reads as the end, so
// that each rule simply runs out.
//
//   list     = element { ("," | ";" | "and" | "or") element }
//   element  = side { relation side } | side { ":" side } | words
//   side     = sum { (cup | cap | setminus) sum } [unit]
//   sum      = [sign] product { ("+" | "-" | "+-") product }
//   product  = factor { ["*" | "/"] factor }
//   factor   = { sign } atom { "!" | "%" | "^" exponent | "_" index | "'" }
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fathom/task/verify/math_lexer.h"
#include "fathom/task/verify/math_value.h"

namespace fathom {

// The rules of one text; run() once.
class MathParser {
 public:
  MathParser(MathTokens tokens, const MathParseLimits& limits)
      : tokens_(std::move(tokens.tokens)), limits_(limits) {
    if (tokens.error) fail(tokens.error);
  }

  MathExpr run() {
    out_.root = list();
    if (peek().kind != Token::Kind::kEnd) fail("something stands behind the answer");
    out_.error = error_;
    return std::move(out_);
  }

 private:
  using Kind = MathKind;
  using Token = MathToken;

  // Counts how deep the rules are inside each other.
  class Level {
   public:
    explicit Level(MathParser& parser) : parser_(parser) {
      if (++parser_.level_ > parser_.limits_.max_depth)
        parser_.fail("brackets are nested too deeply");
    }
    ~Level() { --parser_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    MathParser& parser_;
  };

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token next() {
    Token token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool take(std::string_view sign) {
    if (!peek().is(sign)) return false;
    next();
    return true;
  }
  void expect(std::string_view sign) {
    if (!take(sign)) fail("a bracket is not closed, or something else is missing");
  }
  void fail(const char* why) {
    if (!error_) error_ = why;
    at_ = tokens_.size() - 1;
  }

  uint32_t node(Kind kind, std::vector<uint32_t> children = {}, std::string text = "",
                int64_t a = 0, int64_t b = 0) {
    MathNode n;
    n.kind = kind;
    for (const uint32_t child : children) n.depth = std::max(n.depth, out_.nodes[child].depth + 1);
    n.a = a;
    n.b = b;
    n.text = std::move(text);
    n.children = std::move(children);
    if (static_cast<int64_t>(out_.nodes.size()) >= limits_.max_nodes)
      fail("the answer has too many parts");
    if (n.depth > 3 * limits_.max_depth) fail("the answer is nested too deeply");
    if (error_) return dummy();
    out_.nodes.push_back(std::move(n));
    return static_cast<uint32_t>(out_.nodes.size() - 1);
  }
  // What rules return after an error: node 0, which nobody will read.
  uint32_t dummy() {
    if (out_.nodes.empty()) out_.nodes.emplace_back();
    return 0;
  }
  Kind kind_of(uint32_t id) const { return out_.nodes[id].kind; }
  bool is_integer(uint32_t id) const {
    const MathNode& n = out_.nodes[id];
    return n.kind == Kind::kNumber && n.text.find_first_not_of("0123456789") == std::string::npos;
  }
  bool is_collection(uint32_t id) const {
    const Kind k = kind_of(id);
    return k == Kind::kTuple || k == Kind::kInterval || k == Kind::kSet || k == Kind::kUnion;
  }
  uint32_t constant(MathConstant c) {
    return node(Kind::kConstant, {}, "", static_cast<int64_t>(c));
  }

  // Lists to factors: math_parser.cpp.
  uint32_t list();
  std::vector<uint32_t> items(MathJoin& join);
  uint32_t element();
  uint32_t words();
  uint32_t side();
  uint32_t unit(uint32_t value);
  bool unit_ahead() const;
  uint32_t sum();
  uint32_t product();
  bool factor_ahead() const;
  bool mixed_ahead(uint32_t whole) const;
  bool scale_ahead(uint32_t value) const {  // degrees Celsius or Fahrenheit
    return kind_of(value) == Kind::kDegree && (peek().text == "C" || peek().text == "F");
  }
  uint32_t factor();
  uint32_t raised(uint32_t base);
  uint32_t indexed(uint32_t base);

  // Atoms: math_atoms.cpp.
  uint32_t atom();
  uint32_t command();
  uint32_t symbol();
  uint32_t bracket();
  uint32_t matrix_of_rows(const std::vector<uint32_t>& rows);
  uint32_t argument();
  uint32_t group();
  uint32_t square_root();
  uint32_t function(MathFunction which);
  uint32_t function_argument();
  uint32_t logarithm();
  uint32_t big_operator(Kind kind);
  uint32_t environment(const std::string& name);
  uint32_t enclosed(MathFunction function, const char* close);

  std::vector<Token> tokens_;
  const MathParseLimits limits_;
  size_t at_ = 0;
  int64_t level_ = 0;
  int bars_ = 0;                    // |...| that are open
  std::vector<std::string> bound_;  // variables of sums around this place
  const char* error_ = nullptr;
  MathExpr out_;
};

}  // namespace fathom
