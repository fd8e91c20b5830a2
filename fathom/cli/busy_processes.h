// Other processes that want the processor, for measuring beside them.
#pragma once

#include <vector>

namespace fathom {

// `count` processes that spin while this object lives. Throws Error when one cannot be started.
class BusyProcesses {
 public:
  explicit BusyProcesses(int count);
  ~BusyProcesses();
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;

 private:
  std::vector<int> pids_;
};

}  // namespace fathom
