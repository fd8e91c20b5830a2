// Mazes: walks the path on the grid of "maze 201/001/103" and compares its length with the
// distance.
#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "fathom/task/verify/answer.h"

namespace fathom {
namespace {

struct Maze {
  std::vector<std::string_view> rows;
  size_t start_row = 0, start_column = 0;

  bool open(size_t row, size_t column) const {  // also refuses what wrapped below zero
    return row < rows.size() && column < rows[row].size() && rows[row][column] != '1';
  }
};

std::optional<Maze> parse_maze(std::string_view prompt) {
  constexpr std::string_view kPrefix = "maze ";
  if (!prompt.starts_with(kPrefix)) return std::nullopt;
  prompt.remove_prefix(kPrefix.size());
  Maze maze;
  int starts = 0, goals = 0;
  while (true) {
    const size_t end = std::min(prompt.find('/'), prompt.size());
    maze.rows.push_back(prompt.substr(0, end));
    for (size_t column = 0; column < end; ++column) {
      const char c = prompt[column];
      if (c < '0' || c > '3') return std::nullopt;
      if (c == '3') ++goals;
      if (c != '2') continue;
      ++starts;
      maze.start_row = maze.rows.size() - 1;
      maze.start_column = column;
    }
    if (end == prompt.size()) break;
    prompt.remove_prefix(end + 1);
  }
  if (starts != 1 || goals != 1) return std::nullopt;
  return maze;
}

struct Place {
  size_t row, column;
};

std::optional<Place> moved(Place place, char move) {
  switch (move) {
    case 'U':
      return Place{place.row - 1, place.column};
    case 'D':
      return Place{place.row + 1, place.column};
    case 'L':
      return Place{place.row, place.column - 1};
    case 'R':
      return Place{place.row, place.column + 1};
    default:
      return std::nullopt;
  }
}

// Moves from the start to the goal, -1 when it cannot be reached.
int64_t distance_to_goal(const Maze& maze) {
  std::vector<std::vector<int64_t>> distance;
  for (const auto& row : maze.rows) distance.emplace_back(row.size(), -1);
  distance[maze.start_row][maze.start_column] = 0;
  std::deque<Place> queue = {{maze.start_row, maze.start_column}};
  while (!queue.empty()) {
    const Place place = queue.front();
    queue.pop_front();
    if (maze.rows[place.row][place.column] == '3') return distance[place.row][place.column];
    for (const char move : {'U', 'D', 'L', 'R'}) {
      const Place other = *moved(place, move);
      if (!maze.open(other.row, other.column) || distance[other.row][other.column] >= 0) continue;
      distance[other.row][other.column] = distance[place.row][place.column] + 1;
      queue.push_back(other);
    }
  }
  return -1;
}

}  // namespace

bool maze_correct(std::string_view prompt, std::string_view answer) {
  const std::optional<Maze> maze = parse_maze(prompt);
  if (!maze) return false;
  Place place{maze->start_row, maze->start_column};
  int64_t moves = 0;
  for (const char c : answer) {
    if (c == ' ' || c == '\n') continue;
    const std::optional<Place> other = moved(place, c);
    if (!other || !maze->open(other->row, other->column)) return false;
    place = *other;
    ++moves;
  }
  return maze->rows[place.row][place.column] == '3' && moves == distance_to_goal(*maze);
}

}  // namespace fathom
