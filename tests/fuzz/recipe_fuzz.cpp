// Any text is a recipe or an Error; every option of a recipe can be set from the text that a run
// stores of it, and then has that text.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fathom/base/error.h"
#include "fathom/rl/rl_stage.h"
#include "fathom/train/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    fathom::Recipe recipe = fathom::parse_recipe(text, "input", fathom::rl_stage_kinds());
    FM_CHECK(recipe.total_steps() >= static_cast<int64_t>(recipe.stages.size()), "{} steps",
             recipe.total_steps());
    FM_CHECK(!recipe.values().empty(), "{} stages", recipe.stages.size());
    for (fathom::StageRecipe& stage : recipe.stages) {
      fathom::OptionSet options;
      stage.fields(options);
      const auto values = options.values();
      for (const auto& [name, value] : values) options.set(name, value);
      for (const auto& [name, value] : values)
        FM_CHECK(fathom::option_text(*options.find(name)) == value, "{}: \"{}\"", name, value);
    }
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
  return 0;
}
