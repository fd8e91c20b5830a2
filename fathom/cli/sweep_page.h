// The results of a sweep for a reader: a page with every run as a line, and tables as Markdown.
#pragma once

#include <string>

#include "fathom/cli/sweep_result.h"

namespace fathom {

// Self-contained HTML. Per study: what it controls, then held-out accuracy, then tables.
std::string sweep_page(const SweepResults& results);
std::string sweep_markdown(const SweepResults& results);

}  // namespace fathom
