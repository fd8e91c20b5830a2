// Any text as each JSON file that fathom reads in the folders of a run: the index of a model's
// weights, a checkpoint's manifest and state, a run of a sweep. It is read or an Error.
#include <stdlib.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/cli/sweep_plan.h"
#include "fathom/cli/sweep_run.h"
#include "fathom/model/checkpoint_folder.h"
#include "fathom/train/checkpoint.h"

namespace {

// RUN/checkpoints/step_00000001, of which the files below are replaced by the input. Removed at the
// end.
class RunFolder {
 public:
  RunFolder() {
    char name[] = "/dev/shm/fathom_fuzz_XXXXXX";
    FM_CHECK(::mkdtemp(name) != nullptr, "cannot make {}", name);
    run = name;
    checkpoint = run + "/checkpoints/step_00000001";
    fathom::make_folders(checkpoint + "/model");
    fathom::make_folders(run + "/runs");
    fathom::write_file_atomic(checkpoint + "/model/config.json",
                              fathom::read_file("tests/configs/demo-v3.2.json"));
  }
  ~RunFolder() { std::filesystem::remove_all(run); }
  std::string run, checkpoint;
};

template <class Read>
void try_reading(Read read) {
  try {
    read();
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
  }
}

void put(const std::string& path, const std::string& text) {
  fathom::AtomicWriter file(path, fathom::Durability::kUnsynced);
  file.write(text.data(), text.size());
  file.commit();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const RunFolder folder;
  const std::string text(reinterpret_cast<const char*>(data), size);
  put(folder.checkpoint + "/model/model.safetensors.index.json", text);
  put(folder.checkpoint + "/MANIFEST.json", text);
  put(folder.checkpoint + "/state.json", text);
  put(folder.run + "/runs/cell.json", text);
  try_reading([] { const fathom::CheckpointFolder model(folder.checkpoint + "/model"); });
  try_reading([] { fathom::newest_checkpoint(folder.run, nullptr); });
  try_reading([] {
    const fathom::TrainState state = fathom::read_train_state(folder.checkpoint);
    FM_CHECK(state.stage_idx >= 0 && state.stage_step >= 0 && state.global_step >= 0, "stage {}",
             state.stage_idx);
  });
  try_reading([] {
    const fathom::SweepRun run = fathom::read_sweep_run(folder.run, {.key = "cell"});
    for (const fathom::RunSeries& s : run.series)
      FM_CHECK(s.step.size() == s.value.size(), "{}: {} steps, {} values", s.name, s.step.size(),
               s.value.size());
  });
  return 0;
}
