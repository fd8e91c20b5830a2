#include "fathom/tensor/dims.h"

#include <string>

namespace fathom {

void Dims::bind_one(std::string_view name, const View& v) {
  const std::string_view letters = name.substr(name.rfind('_') + 1);
  FM_CHECK(static_cast<int>(letters.size()) == v.rank, "{}: {} has rank {}", op_, name, v.rank);
  for (int i = 0; i < v.rank; ++i) {
    const char letter = letters[static_cast<size_t>(i)];
    FM_CHECK(letter >= 'A' && letter <= 'z', "{}: {} is not named by its shape", op_, name);
    const int at = letter - 'A';
    int64_t& size = size_[static_cast<size_t>(at)];
    if (!(known_ >> at & 1)) size = v.dim[i];
    known_ |= uint64_t{1} << at;
    FM_CHECK(size == v.dim[i], "{}: {}: {} is {}, but {} elsewhere", op_, name,
             std::string(1, letter), v.dim[i], size);
  }
}

}  // namespace fathom
