#include "fathom/cli/machine.h"

#include <fmt/core.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/thread_pool.h"

namespace fathom {
namespace {

// Files under /proc and /sys report size 0, so they are read to their end.
std::string read_virtual_file(const char* path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path, "r"), std::fclose);
  if (!file) return "";
  std::string text;
  char piece[4096];
  while (const size_t n = std::fread(piece, 1, sizeof piece, file.get())) text.append(piece, n);
  return text;
}

// The rest of the line that starts with `key`, after the colon; "" when there is none.
std::string field(const std::string& text, std::string_view key) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line(text.data() + at, end - at);
    const size_t colon = line.find(':');
    if (line.starts_with(key) && colon != line.npos) {
      const size_t value = line.find_first_not_of(" \t", colon + 1);
      return value == line.npos ? "" : std::string(line.substr(value));
    }
    at = end + 1;
  }
  return "";
}

uint64_t leading_number(std::string_view text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> out;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2")) out.emplace_back("SSE4.2");
  if (__builtin_cpu_supports("avx")) out.emplace_back("AVX");
  if (__builtin_cpu_supports("avx2")) out.emplace_back("AVX2");
  if (__builtin_cpu_supports("fma")) out.emplace_back("FMA");
  if (__builtin_cpu_supports("avx512f")) out.emplace_back("AVX-512F");
  if (__builtin_cpu_supports("avx512bw")) out.emplace_back("AVX-512BW");
  if (__builtin_cpu_supports("avx512vnni")) out.emplace_back("AVX-512VNNI");
  if (__builtin_cpu_supports("avx512bf16")) out.emplace_back("AVX-512BF16");
#if !defined(__clang__)  // Clang 16 does not know these names
  if (__builtin_cpu_supports("f16c")) out.emplace_back("F16C");
  if (__builtin_cpu_supports("amx-int8")) out.emplace_back("AMX-INT8");
  if (__builtin_cpu_supports("amx-bf16")) out.emplace_back("AMX-BF16");
#endif
#elif defined(__aarch64__)
  out.emplace_back("NEON");
#endif
  return out;
}

std::string chosen_word(const std::string& setting) {  // "always [madvise] never" -> "madvise"
  const size_t open = setting.find('['), close = setting.find(']');
  if (open == setting.npos || close == setting.npos) return "unknown";
  return setting.substr(open + 1, close - open - 1);
}

std::vector<std::string> list_gpus() {
  std::vector<std::string> out;
  const char* command =
      "command -v nvidia-smi >/dev/null && "
      "nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command, "r"), pclose);
  if (!pipe) return out;
  char line[512];
  while (std::fgets(line, sizeof line, pipe.get())) {
    std::string text(line);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (text.find(',') != text.npos)
      out.push_back(text);  // anything else is the driver's complaint
  }
  return out;
}

}  // namespace

Machine inspect_machine() {
  Machine m;
  m.cpu = field(read_virtual_file("/proc/cpuinfo"), "model name");
  if (m.cpu.empty()) m.cpu = "unknown";
  m.isa = instruction_sets();
  m.cores = available_cores();
  const std::string memory = read_virtual_file("/proc/meminfo");
  m.memory_bytes = leading_number(field(memory, "MemTotal")) * 1024;
  m.available_bytes = leading_number(field(memory, "MemAvailable")) * 1024;
  const uint64_t limit = leading_number(read_virtual_file("/sys/fs/cgroup/memory.max"));
  if (limit > 0 && limit < m.memory_bytes) {
    const uint64_t used = leading_number(read_virtual_file("/sys/fs/cgroup/memory.current"));
    m.memory_bytes = limit;
    m.available_bytes = std::min(m.available_bytes, limit - std::min(limit, used));
  }
  m.huge_pages = chosen_word(read_virtual_file("/sys/kernel/mm/transparent_hugepage/enabled"));
  m.gpus = list_gpus();
  utsname name{};
  if (uname(&name) == 0)
    m.system = fmt::format("{} {} {}", name.sysname, name.release, name.machine);
  return m;
}

uint64_t resident_bytes() {
  const std::string text = read_virtual_file("/proc/self/statm");
  const size_t blank = text.find(' ');
  if (blank == text.npos) return 0;
  return leading_number(std::string_view(text).substr(blank + 1)) *
         static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

std::string human_bytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace fathom
