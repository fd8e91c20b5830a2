// The atoms of an answer: numbers, letters, functions, brackets, LaTeX commands (math_parser.h).
#include "fathom/task/verify/math_parser.h"

namespace fathom {
namespace {

struct FunctionName {
  const char* name;
  MathFunction function;
};
constexpr FunctionName kFunctions[] = {
    {"sin", MathFunction::kSin},     {"cos", MathFunction::kCos},
    {"tan", MathFunction::kTan},     {"sec", MathFunction::kSec},
    {"csc", MathFunction::kCsc},     {"cot", MathFunction::kCot},
    {"arcsin", MathFunction::kAsin}, {"arccos", MathFunction::kAcos},
    {"arctan", MathFunction::kAtan}, {"asin", MathFunction::kAsin},
    {"acos", MathFunction::kAcos},   {"atan", MathFunction::kAtan},
    {"sinh", MathFunction::kSinh},   {"cosh", MathFunction::kCosh},
    {"tanh", MathFunction::kTanh},   {"asinh", MathFunction::kAsinh},
    {"acosh", MathFunction::kAcosh}, {"atanh", MathFunction::kAtanh},
    {"exp", MathFunction::kExp},     {"ln", MathFunction::kLn},
    {"abs", MathFunction::kAbs},     {"floor", MathFunction::kFloor},
    {"ceil", MathFunction::kCeil},
};

const FunctionName* find_function(std::string_view name) {
  const auto* at = std::ranges::find(kFunctions, name, &FunctionName::name);
  return at == std::end(kFunctions) ? nullptr : at;
}

bool is_letter(std::string_view text) {
  return text.size() == 1 &&
         ((text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z'));
}

// The letters that stand for unknown functions before a bracket.
bool is_function_letter(std::string_view name) {
  return name.size() == 1 && std::string_view("fghFGH").find(name) != std::string_view::npos;
}
}  // namespace

uint32_t MathParser::atom() {
  const Level level(*this);  // every way down leads through here
  const Token& t = peek();
  switch (t.kind) {
    case Token::Kind::kNumber:
      return node(Kind::kNumber, {}, next().text);
    case Token::Kind::kSymbol:
      return symbol();
    case Token::Kind::kCommand:
      return command();
    case Token::Kind::kSign:
      return bracket();
    case Token::Kind::kWord:
      if (is_letter(t.text)) return node(Kind::kSymbol, {}, next().text);
      return fail("words inside a formula"), dummy();
    default:
      return fail("something is missing"), dummy();
  }
}

uint32_t MathParser::symbol() {
  const std::string name = next().text;
  if (is_function_letter(name) && peek().is("(")) {
    next();
    MathJoin join = MathJoin::kComma;
    std::vector<uint32_t> arguments = items(join);
    expect(")");
    return node(Kind::kApply, std::move(arguments), name);
  }
  const bool bound = std::ranges::find(bound_, name) != bound_.end();
  if (name == "e" && !bound) return constant(MathConstant::kE);
  if (name == "i" && !bound) return constant(MathConstant::kI);
  return node(Kind::kSymbol, {}, name);
}

uint32_t MathParser::command() {
  const Token t = next();
  if (t.text == "pi") return constant(MathConstant::kPi);
  if (t.text == "infty") return node(Kind::kInfinity);
  if (t.text == "emptyset") return node(Kind::kSet);
  if (t.text == "dots") return node(Kind::kEllipsis);
  if (t.text == "frac") {
    const uint32_t upper = argument();
    const uint32_t lower = argument();
    return node(Kind::kMultiply, {upper, node(Kind::kInverse, {lower})}, "frac");
  }
  if (t.text == "binom") {
    const uint32_t upper = argument();
    return node(Kind::kBinomial, {upper, argument()});
  }
  if (t.text == "sqrt") return square_root();
  if (t.text == "surd") return node(Kind::kRoot, {atom(), node(Kind::kNumber, {}, "2")});
  if (t.text == "cbrt") return node(Kind::kRoot, {atom(), node(Kind::kNumber, {}, "3")});
  if (t.text == "log") return logarithm();
  if (t.text == "lg") return node(Kind::kLog, {node(Kind::kNumber, {}, "10"), function_argument()});
  if (t.text == "sum") return big_operator(Kind::kSum);
  if (t.text == "prod") return big_operator(Kind::kProduct);
  if (t.text == "begin") return environment(t.more);
  if (t.text == "lfloor") return enclosed(MathFunction::kFloor, "rfloor");
  if (t.text == "lceil") return enclosed(MathFunction::kCeil, "rceil");
  if (const FunctionName* entry = find_function(t.text)) return function(entry->function);
  return fail("a command where a value is expected"), dummy();
}

uint32_t MathParser::enclosed(MathFunction function, const char* close) {
  const uint32_t inside = sum();
  if (!peek().is_command(close)) return fail("a bracket is not closed"), dummy();
  next();
  return node(Kind::kCall, {inside}, "", static_cast<int64_t>(function));
}

// {...} with one value in it.
uint32_t MathParser::group() {
  expect("{");
  const uint32_t inside = side();
  expect("}");
  return inside;
}

// The argument of \frac and its like: a group, one digit, or one atom.
uint32_t MathParser::argument() {
  if (peek().is("{")) return group();
  if (peek().kind != Token::Kind::kNumber) return atom();
  std::string& digits = tokens_[at_].text;
  if (digits.size() == 1 || digits[0] < '0' || digits[0] > '9') return atom();
  const std::string first = digits.substr(0, 1);
  digits.erase(0, 1);
  if (digits[0] < '0' || digits[0] > '9') return fail("a digit is missing"), dummy();
  return node(Kind::kNumber, {}, first);
}

uint32_t MathParser::square_root() {
  uint32_t degree = node(Kind::kNumber, {}, "2");
  if (peek().is("[")) {
    next();
    degree = sum();
    expect("]");
  }
  const uint32_t inside = peek().is("{") ? group() : atom();
  return node(Kind::kRoot, {inside, degree});
}

uint32_t MathParser::function(MathFunction which) {
  uint32_t exponent = 0;
  bool has_exponent = false;
  if (take("^")) {
    const bool braces = peek().is("{");
    const size_t skip = braces ? 1 : 0;
    if (peek(skip).is("-") && peek(skip + 1).text == "1") {  // the inverse function
      const bool trigonometric = which <= MathFunction::kTan;
      if (!trigonometric) return fail("an unknown inverse function"), dummy();
      for (size_t i = 0; i < skip + 2; ++i) next();
      if (braces) expect("}");
      which = static_cast<MathFunction>(static_cast<int>(which) +
                                        static_cast<int>(MathFunction::kAsin));
    } else {
      exponent = braces ? group() : factor();
      has_exponent = true;
    }
  }
  const uint32_t value = node(Kind::kCall, {function_argument()}, "", static_cast<int64_t>(which));
  return has_exponent ? node(Kind::kPower, {value, exponent}) : value;
}

// A bracket, or the product that follows: "sin 2x cos y" is sin(2x) cos(y).
uint32_t MathParser::function_argument() {
  if (peek().is("(") || peek().is("{") || peek().is("[")) return atom();
  std::vector<uint32_t> factors = {factor()};
  while (!error_ && factor_ahead()) {
    if (peek().kind == Token::Kind::kCommand &&
        (find_function(peek().text) || peek().text == "log" || peek().text == "sum" ||
         peek().text == "prod"))
      break;
    factors.push_back(factor());
  }
  if (error_) return dummy();
  return factors.size() == 1 ? factors[0] : node(Kind::kMultiply, std::move(factors));
}

uint32_t MathParser::logarithm() {
  if (!take("_"))
    return node(Kind::kCall, {function_argument()}, "", static_cast<int64_t>(MathFunction::kLn));
  uint32_t base = 0;
  if (peek().kind == Token::Kind::kNumber && peek().text.size() > 1 && peek().text[0] != '1')
    base = argument();  // \log_28 is the logarithm of 8 to the base 2
  else
    base = peek().is("{") ? group() : atom();
  return node(Kind::kLog, {base, function_argument()});
}

uint32_t MathParser::big_operator(Kind kind) {
  expect("_");
  expect("{");
  if (peek().kind != Token::Kind::kSymbol) return fail("a sum without its variable"), dummy();
  const std::string variable = next().text;
  if (peek().kind != Token::Kind::kRelation || next().text != "=")
    return fail("a sum without its first term"), dummy();
  const uint32_t from = sum();
  expect("}");
  expect("^");
  const uint32_t to = peek().is("{") ? group() : atom();
  bound_.push_back(variable);
  const uint32_t body = product();
  bound_.pop_back();
  return node(kind, {from, to, body}, variable);
}

uint32_t MathParser::environment(const std::string& name) {
  constexpr std::string_view kMatrices[] = {"pmatrix", "bmatrix", "matrix", "array", "smallmatrix"};
  if (std::ranges::find(kMatrices, name) == std::end(kMatrices))
    return fail("an unknown environment"), dummy();
  std::vector<uint32_t> cells;
  int64_t rows = 0, columns = 0, in_row = 0;
  while (!error_) {
    cells.push_back(sum());
    ++in_row;
    if (take("&")) continue;
    if (rows++ == 0) columns = in_row;
    if (in_row != columns) fail("rows of different lengths");
    in_row = 0;
    const bool more = take("\\\\");
    if (!peek().is_command("end")) {
      if (!more) fail("a matrix that does not end");
      continue;
    }
    if (next().more != name) fail("a matrix that does not end");
    break;
  }
  return node(Kind::kMatrix, std::move(cells), "", rows, columns);
}

// [[1,2],[3,4]]
uint32_t MathParser::matrix_of_rows(const std::vector<uint32_t>& rows) {
  std::vector<uint32_t> cells;
  const size_t columns = out_.nodes[rows[0]].children.size();
  for (const uint32_t row : rows) {
    const std::vector<uint32_t>& of_row = out_.nodes[row].children;
    if (of_row.size() != columns) return fail("rows of different lengths"), dummy();
    cells.insert(cells.end(), of_row.begin(), of_row.end());
  }
  return node(Kind::kMatrix, std::move(cells), "", static_cast<int64_t>(rows.size()),
              static_cast<int64_t>(columns));
}

uint32_t MathParser::bracket() {
  if (take("|")) {
    ++bars_;
    const uint32_t inside = sum();
    --bars_;
    expect("|");
    return node(Kind::kCall, {inside}, "", static_cast<int64_t>(MathFunction::kAbs));
  }
  const std::string open = next().text;
  const bool set = open == "\\{";
  if (!set && open != "(" && open != "[" && open != "{")
    return fail("a sign where a value is expected"), dummy();
  const int outer_bars = std::exchange(bars_, 0);
  if (set && take("\\}")) {
    bars_ = outer_bars;
    return node(Kind::kSet);
  }
  MathJoin join = MathJoin::kComma;
  std::vector<uint32_t> all = items(join);
  bars_ = outer_bars;
  const std::string close = next().text;
  if (error_) return dummy();
  if (set || open == "{") {
    if (close != (set ? "\\}" : "}")) return fail("a bracket is not closed"), dummy();
    return !set && all.size() == 1 ? all[0] : node(Kind::kSet, std::move(all));
  }
  if (close != ")" && close != "]") return fail("a bracket is not closed"), dummy();
  const bool low_in = open == "[", high_in = close == "]";
  if (all.size() == 1) {
    if (low_in != high_in) return fail("brackets that do not match"), dummy();
    return all[0];
  }
  const bool rows = low_in && high_in && std::ranges::all_of(all, [&](uint32_t id) {
                      return out_.nodes[id].text == "[]";
                    });
  if (rows) return matrix_of_rows(all);
  if (all.size() == 2 && (low_in || high_in))
    return node(Kind::kInterval, std::move(all), low_in && high_in ? "[]" : "", low_in, high_in);
  if (low_in != high_in) return fail("brackets that do not match"), dummy();
  return node(Kind::kTuple, std::move(all), low_in ? "[]" : "");
}

}  // namespace fathom
