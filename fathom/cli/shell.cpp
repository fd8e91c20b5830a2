#include "fathom/cli/shell.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>

#include "fathom/base/error.h"

extern char** environ;

namespace fathom {
namespace {

void check(int error, const std::string& command) {
  if (error != 0)
    throw Error(Code::kInvalidArgument,
                fmt::format("cannot run \"{}\": {}", command, std::strerror(error)));
}

// Whether there was an end within the limit.
bool read_all(int fd, double limit_s, std::string* text) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  std::array<char, 4096> piece;
  for (;;) {
    if (limit_s > 0) {
      const double left_s = limit_s - std::chrono::duration<double>(Clock::now() - begin).count();
      if (left_s <= 0) return false;
      pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
      constexpr double kLongestWaitS = 1e6;  // poll counts milliseconds in an int
      const int ready =
          ::poll(&wait, 1, static_cast<int>(std::min(left_s, kLongestWaitS) * 1e3) + 1);
      if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    }
    const ssize_t n = ::read(fd, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return true;
    text->append(piece.data(), static_cast<size_t>(n));
  }
}

}  // namespace

CommandOutput run_command(const std::string& command, std::string_view input, double limit_s) {
  // The input is a file, so that a command that does not read it blocks nobody.
  const std::unique_ptr<FILE, int (*)(FILE*)> in(std::tmpfile(), std::fclose);
  check(in ? 0 : errno, command);
  std::fwrite(input.data(), 1, input.size(), in.get());
  std::rewind(in.get());
  int out[2];
  check(::pipe2(out, O_CLOEXEC) == 0 ? 0 : errno, command);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, fileno(in.get()), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
  const char* words[] = {"sh", "-c", command.c_str(), nullptr};
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // A group of its own can be killed whole; without one Ctrl-C reaches the command.
  if (limit_s > 0) posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  pid_t child = 0;
  const int error =
      ::posix_spawn(&child, "/bin/sh", &files, &attributes, const_cast<char**>(words), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  ::close(out[1]);
  CommandOutput result;
  if (error == 0) result.timed_out = !read_all(out[0], limit_s, &result.text);
  if (result.timed_out) ::kill(-child, SIGKILL);
  ::close(out[0]);
  check(error, command);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace fathom
