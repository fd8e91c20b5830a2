// Short true sentences from templates, so that a corpus of problems also has words in it.
#pragma once

#include <string>

#include "fathom/base/rng.h"

namespace fathom {

std::string make_sentence(Rng& rng);  // one or two sentences, at most 100 characters

}  // namespace fathom
