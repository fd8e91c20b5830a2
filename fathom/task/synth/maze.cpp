// "maze 201/001/103": rows of cells, 0 open, 1 wall, 2 start, 3 goal; the answer is a shortest path
// of moves U D L R. The thinking searches breadth first from the goal, so that each pointer leads
// toward it: "12>22" says that from cell (row 1, column 2) one goes to cell (2, 2). Then it walks
// from the start: "00D10R11...".
#include <fmt/core.h>

#include <array>
#include <deque>

#include "fathom/task/synth/generators.h"

namespace fathom::synth {
namespace {

struct Move {
  char name;
  int rows, columns;
};
constexpr std::array<Move, 4> kMoves = {{{'U', -1, 0}, {'D', 1, 0}, {'L', 0, -1}, {'R', 0, 1}}};

struct Grid {
  int size;
  std::vector<char> cells;  // '0' .. '3', row by row
  char at(int cell) const { return cells[static_cast<size_t>(cell)]; }
  // The cell after the move, -1 outside.
  int step(int cell, const Move& move) const {
    const int row = cell / size + move.rows, column = cell % size + move.columns;
    return row < 0 || column < 0 || row >= size || column >= size ? -1 : row * size + column;
  }
  std::string name(int cell) const { return fmt::format("{}{}", cell / size, cell % size); }
};

Grid draw_grid(Rng& rng, int size, int& start, int& goal) {
  constexpr double kWallShare = 0.3;
  Grid grid{size, {}};
  const int count = size * size;
  for (int i = 0; i < count; ++i) grid.cells.push_back(rng.uniform() < kWallShare ? '1' : '0');
  start = static_cast<int>(rng.range(0, count - 1));
  goal = static_cast<int>(rng.range(0, count - 1));
  grid.cells[static_cast<size_t>(start)] = '2';
  grid.cells[static_cast<size_t>(goal)] = '3';
  return grid;
}

// Fills `next` (the move toward the goal per cell, -1 where not reached) and `distance`; stops at
// the start.
std::string search_from_goal(const Grid& grid, int start, int goal, std::vector<int>& next,
                             std::vector<int>& distance) {
  std::string trace;
  next.assign(grid.cells.size(), -1);
  distance.assign(grid.cells.size(), -1);
  distance[static_cast<size_t>(goal)] = 0;
  std::deque<int> queue = {goal};
  while (!queue.empty() && distance[static_cast<size_t>(start)] < 0) {
    const int cell = queue.front();
    queue.pop_front();
    for (size_t m = 0; m < kMoves.size(); ++m) {
      const int other = grid.step(cell, kMoves[m]);
      if (other < 0 || grid.at(other) == '1' || distance[static_cast<size_t>(other)] >= 0) continue;
      distance[static_cast<size_t>(other)] = distance[static_cast<size_t>(cell)] + 1;
      next[static_cast<size_t>(other)] = static_cast<int>(m ^ 1);  // back the way it came
      trace += fmt::format("{}{}>{}", trace.empty() ? "" : ";", grid.name(other), grid.name(cell));
      queue.push_back(other);
      if (other == start) break;
    }
  }
  return trace;
}

}  // namespace

Problem make_maze(Rng& rng, int difficulty) {
  const int size = difficulty + 2;
  while (true) {
    int start = 0, goal = 0;
    const Grid grid = draw_grid(rng, size, start, goal);
    if (start == goal) continue;
    std::vector<int> next, distance;
    Problem problem;
    problem.thinking = search_from_goal(grid, start, goal, next, distance);
    if (distance[static_cast<size_t>(start)] < size - 1) continue;  // unreachable or too easy
    problem.thinking += '|';
    for (int cell = start; cell != goal;) {
      const Move& move = kMoves[static_cast<size_t>(next[static_cast<size_t>(cell)])];
      problem.thinking += grid.name(cell) + move.name;
      problem.answer += (problem.answer.empty() ? "" : " ") + std::string(1, move.name);
      cell = grid.step(cell, move);
    }
    problem.thinking += grid.name(goal);
    problem.prompt = "maze ";
    for (int i = 0; i < size * size; ++i) {
      if (i > 0 && i % size == 0) problem.prompt += '/';
      problem.prompt += grid.at(i);
    }
    return problem;
  }
}

}  // namespace fathom::synth
