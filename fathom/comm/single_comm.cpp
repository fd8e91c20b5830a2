// The collectives of one process: nothing to send.
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/comm/comm.h"

namespace fathom {
namespace {

class SingleComm final : public Comm {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier() override {}
  void broadcast(void*, size_t, int root) override { FM_CHECK(root == 0, "root is {}", root); }
  std::vector<std::string> gather(std::string_view own) override { return {std::string(own)}; }
  void add_in_order(std::span<const float> x, int count, bool add,
                    std::span<float> total) override {
    FM_CHECK(count == 1 && x.size() == total.size(), "{} summands of {} numbers for {}", count,
             x.size(), total.size());
    if (add)
      for (size_t i = 0; i < x.size(); ++i) total[i] += x[i];
    else if (!x.empty())  // whose data may be null
      std::memmove(total.data(), x.data(), x.size_bytes());
  }
};

}  // namespace

std::unique_ptr<Comm> make_single_comm() { return std::make_unique<SingleComm>(); }

void broadcast_text(Comm& comm, std::string* text, int root) {
  uint64_t size_bytes = text->size();
  comm.broadcast(&size_bytes, sizeof size_bytes, root);
  text->resize(static_cast<size_t>(size_bytes));
  comm.broadcast(text->data(), text->size(), root);
}

}  // namespace fathom
