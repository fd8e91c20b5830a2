#include "fathom/model/step.h"

namespace fathom {

void Step::add_sequence(const std::vector<int32_t>& tokens, int64_t first_pos) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    token.push_back(tokens[i]);
    pos.push_back(static_cast<int32_t>(first_pos + static_cast<int64_t>(i)));
  }
  seqs.first_pos.push_back(static_cast<int32_t>(first_pos));
  seqs.first_row.push_back(static_cast<int32_t>(token.size()));
}

}  // namespace fathom
