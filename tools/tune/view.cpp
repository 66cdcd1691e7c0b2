// The view of a tuning run: see view.hpp.
#include "tools/tune/view.hpp"

#include <algorithm>
#include <cstdio>

#include "codegen/format.hpp"
#include "tools/cli.hpp"

namespace adamas::tools {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

std::string name_of(const runtime::TunedShape& shape) {
  return fmt::format("batch={} kv_heads={} tokens={}", shape.batch, shape.kv_heads, shape.tokens);
}

void put_shape(ordered_json& object, const runtime::TunedShape& shape) {
  object["batch"] = shape.batch, object["kv_heads"] = shape.kv_heads, object["tokens"] = shape.tokens;
}

/// The fastest of the trials so far; the default's while there is no other.
const Trial& leader(const ShapeRecord& record) {
  const Trial* best = &record.trials.front();
  for (const Trial& trial : record.trials) {
    if (trial.state == Trial::State::running && trial.passes > 0 && trial.ratio < best->ratio) best = &trial;
  }
  return *best;
}

std::string bar(double share) {
  constexpr int kWidth = 16;
  const int filled = static_cast<int>(share * kWidth + 0.5);
  return fmt::format("[{}{}]", std::string(static_cast<std::size_t>(filled), '#'),
                     std::string(static_cast<std::size_t>(kWidth - filled), '.'));
}

}  // namespace

TuneView::TuneView(Style style, const TuneSubject& subject, const std::vector<runtime::TunedShape>& shapes,
                   double seconds)
    : style_(style),
      subject_(subject),
      shapes_(shapes),
      rows_(shapes.size()),
      start_(Clock::now()),
      seconds_(seconds) {
  if (style_ != Style::json) {
    fmt::print("device  {} ({}), target {}, read bandwidth {:.1f} GB/s\nspec    {}\n\n", subject.device,
               subject.device_name, subject.target, subject.read_gbps, subject.spec);
    std::fflush(stdout);
    return;
  }
  print_json({{"event", "start"},
              {"spec", subject.spec},
              {"target", subject.target},
              {"device", subject.device},
              {"device_name", subject.device_name},
              {"read_gbps", subject.read_gbps},
              {"shapes", shapes.size()}});
}

double TuneView::seconds_left() const {
  return std::max(0.0, seconds_ - std::chrono::duration<double>(Clock::now() - start_).count());
}

std::string TuneView::chosen_text(const std::string& tuning) const {
  const auto spec = codegen::Spec::parse(subject_.spec);
  const std::string text = codegen::tuning_difference(codegen::Tuning::parse(tuning, spec, subject_.target),
                                                      codegen::Tuning::parse("", spec, subject_.target));
  return text.empty() ? "the default" : text;
}

void TuneView::begin(std::size_t shape) {
  shape_ = shape;
  rows_[shape].progress = "setting up";
  if (style_ == Style::lines) fmt::print("{}: setting up\n", name_of(shapes_[shape]));
  draw();
}

void TuneView::space(const runtime::TunedShape& shape, const codegen::TuningSpace& space) {
  candidates_ = space.decode.size();
  if (style_ == Style::lines)
    fmt::print("{}: {} candidates, {} excluded\n", name_of(shape), candidates_, space.excluded.size());
}

void TuneView::compiled(std::size_t done, std::size_t all) {
  if (done < all) rows_[shape_].progress = fmt::format("compiled {} of {}", done, all);
  draw();
}

void TuneView::trial(const ShapeRecord& so_far, std::size_t candidate, bool dense) {
  Row& row = rows_[shape_];
  if (dense) {
    row.progress = "dense_chunk";
    return draw();
  }
  const Trial& trial = so_far.trials[candidate];
  if (style_ == Style::json) {
    ordered_json event{{"event", "trial"}};
    put_shape(event, so_far.shape);
    event["tuning"] = so_far.tunings[candidate];
    event.update(json_of(trial));
    return print_json(event);
  }
  const auto looked_at =
      std::ranges::count_if(so_far.trials, [](const Trial& t) { return t.state != Trial::State::waiting; });
  const auto running =
      std::ranges::count_if(so_far.trials, [](const Trial& t) { return t.state == Trial::State::running; });
  const auto all = static_cast<std::ptrdiff_t>(so_far.trials.size());
  row.progress = looked_at < all
                     ? fmt::format("{} {} of {}", bar(static_cast<double>(looked_at) / all), looked_at, all)
                     : fmt::format("{} left", running);
  const Trial& best = leader(so_far);
  row.best = fmt::format("{:.2f}", best.us);
  row.gain = best.ratio > 0 ? fmt::format("{:.3f}x", 1 / best.ratio) : "-";
  if (style_ == Style::lines && trial.state == Trial::State::failed)
    fmt::print("{}: {} failed: {}\n", name_of(so_far.shape), chosen_text(so_far.tunings[candidate]),
               trial.why);
  draw();
}

void TuneView::end(std::size_t shape, const ShapeRecord& record, bool resumed) {
  if (style_ == Style::json) {
    ordered_json event{{"event", "shape"}, {"resumed", resumed}};
    event.update(json_of(record));
    return print_json(event);
  }
  Row& row = rows_[shape];
  row.progress = resumed           ? "found before"
                 : record.complete ? fmt::format("{:.0f} s", record.seconds)
                                   : "stopped";
  row.best = fmt::format("{:.2f}", record.best_trial().us);
  row.gain = fmt::format("{:.3f}x", 1 / record.best_trial().ratio);
  if (record.dense_us > 0) row.over_dense = fmt::format("{:.2f}x", record.dense_us / record.best_trial().us);
  row.chosen = chosen_text(record.chosen);
  if (style_ == Style::lines)
    fmt::print("{}: {} us, {} of the default, {} over dense, with {} ({})\n", name_of(record.shape), row.best,
               row.gain, row.over_dense, row.chosen, row.progress);
  last_draw_ = {};
  draw();
}

void TuneView::draw() {
  if (style_ == Style::lines) std::fflush(stdout);
  if (style_ != Style::table) return;
  const auto now = Clock::now();
  if (now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  std::string text = drawn_ > 0 ? fmt::format("\x1b[{}A", drawn_) : "";
  text += fmt::format("\x1b[2K{:<36} {:<26} {:>10} {:>10} {:>11}  {}\n", "shape", "progress", "best us",
                      "of default", "over dense", "chosen");
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const Row& row = rows_[i];
    text += fmt::format("\x1b[2K{:<36} {:<26} {:>10} {:>10} {:>11}  {}\n", name_of(shapes_[i]), row.progress,
                        row.best, row.gain, row.over_dense, row.chosen);
  }
  text += fmt::format("\x1b[2Kat most {:.0f} s left; Ctrl-C keeps what was found\n", seconds_left());
  drawn_ = static_cast<int>(rows_.size()) + 2;
  fmt::print("{}", text);
  std::fflush(stdout);
}

}  // namespace adamas::tools
