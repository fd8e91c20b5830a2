// SHA-256 (FIPS 180-4), for checking that a file or text is the one that is known.
#pragma once

#include <string>
#include <string_view>

namespace fathom {

std::string sha256_hex(std::string_view bytes);  // 64 lower-case digits

}  // namespace fathom
