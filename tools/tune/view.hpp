// What people see of a tuning run: a table that is redrawn in place on a terminal, plain lines elsewhere; or
// events as JSON lines.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "tools/tune/shape_tuner.hpp"

namespace adamas::tools {

/// All shapes of one Spec. Events: "start", "trial", "shape", each an object a line on stdout.
class TuneView : public TuneObserver {
 public:
  enum class Style { table, lines, json };

  /// @param seconds  that the run may take
  TuneView(Style style, const TuneSubject& subject, const std::vector<runtime::TunedShape>& shapes,
           double seconds);

  void begin(std::size_t shape);
  void end(std::size_t shape, const ShapeRecord& record, bool resumed);

  void space(const runtime::TunedShape&, const codegen::TuningSpace&) override;
  void compiled(std::size_t done, std::size_t all) override;
  void trial(const ShapeRecord& so_far, std::size_t candidate, bool dense) override;

 private:
  struct Row {
    std::string progress = "waiting", best = "-", gain = "-", over_dense = "-", chosen;
  };
  void draw();
  double seconds_left() const;
  std::string chosen_text(const std::string& tuning) const;

  Style style_;
  const TuneSubject& subject_;
  const std::vector<runtime::TunedShape>& shapes_;
  std::vector<Row> rows_;
  std::size_t shape_ = 0, candidates_ = 0;
  int drawn_ = 0;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_{};
  double seconds_;
};

}  // namespace adamas::tools
