// Every environment variable that fathom honours. For debugging only; options belong in Options
// structs.
#pragma once

#include <span>
#include <string>

namespace fathom {

struct EnvVar {
  const char* name;
  const char* doc;
};

std::span<const EnvVar> env_vars();       // sorted by name; `fathom doctor` prints them
std::string env_value(const char* name);  // "" when unset; `name` must be in the table

}  // namespace fathom
