// The HTML report: see report.hpp.
#include "tools/tune/report.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <string_view>
#include <utility>

#include "codegen/format.hpp"

namespace adamas::tools {
namespace {

using codegen::Spec;
using codegen::Tuning;

std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

constexpr std::string_view kStyle = R"(
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2330}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #d5dae3}
table{border-collapse:collapse;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #e7eaf0}
th{font-weight:600}td.t,th.t{text-align:left}tr.best td{background:#e6f4ea}tr.failed td{color:#8d939e}
svg{display:block;margin:.6rem 0;max-width:100%}svg text{font:12px system-ui,sans-serif;fill:#1c2330}
code{font-size:.92em}.note{color:#5a6372}summary{cursor:pointer;color:#2456a6}
@media(prefers-color-scheme:dark){body{background:#14181f;color:#dfe4ec}svg text{fill:#dfe4ec}
th,td{border-color:#2b323d}h2{border-color:#2b323d}tr.best td{background:#1d3a27}summary{color:#8ab4f8}}
)";

std::string shape_name(const runtime::TunedShape& shape) {
  return fmt::format("batch {} · {} K/V heads · {} tokens", shape.batch, shape.kv_heads, shape.tokens);
}

double speed_up(const ShapeRecord& record) { return 1 / record.best_trial().ratio; }

std::string difference(const std::string& tuning, const TuneSubject& subject, const std::string& base) {
  const Spec spec = Spec::parse(subject.spec);
  const std::string text = codegen::tuning_difference(Tuning::parse(tuning, spec, subject.target),
                                                      Tuning::parse(base, spec, subject.target));
  return text.empty() ? "default" : text;
}

std::string summary_table(const TuneSubject& subject, const std::vector<ShapeRecord>& records) {
  std::string html =
      "<table class=\"summary\"><tr><th>batch</th><th>K/V heads</th><th>tokens</th><th>default "
      "us</th><th>tuned us</th>"
      "<th>speed-up</th><th>dense us</th><th>over dense</th><th>of "
      "bandwidth</th><th>trials</th><th>passes</th>"
      "<th>seconds</th><th class=\"t\">chosen</th></tr>\n";
  for (const ShapeRecord& record : records) {
    const double us = record.best_trial().us;
    const std::string over_dense = record.dense_us > 0 ? fmt::format("{:.2f}x", record.dense_us / us) : "-";
    const std::string dense = record.dense_us > 0 ? fmt::format("{:.2f}", record.dense_us) : "-";
    html += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.2f}</td><td>{:.2f}</td><td>{:.3f}x</td><td>{}</"
        "td><td>{}</td>"
        "<td>{:.0f} %</td><td>{}</td><td>{}</td><td>{:.1f}</td><td class=\"t\"><code>{}</code>{}</td></tr>\n",
        record.shape.batch, record.shape.kv_heads, record.shape.tokens, record.best_trial().default_us(), us,
        speed_up(record), dense, over_dense, 100 * record.bytes / us / 1e3 / subject.read_gbps,
        record.trials.size(), record.passes, record.seconds,
        escaped(difference(record.chosen, subject, record.tunings.front())),
        record.complete ? "" : " <span class=\"note\">(stopped early)</span>");
  }
  return html + "</table>\n";
}

/// White to green, by how much there was to gain.
std::string colour_of(double gain) {
  const double share = std::clamp(std::log2(std::max(gain, 1.0)), 0.0, 1.0);
  const auto mix = [share](int from, int to) { return std::lround(from + share * (to - from)); };
  return fmt::format("rgb({},{},{})", mix(246, 35), mix(247, 139), mix(249, 69));
}

/// Speed-up over the default: lengths to the right, batches down. One map for each number of K/V heads.
std::string heat_maps(const std::vector<ShapeRecord>& records) {
  std::map<int, std::vector<const ShapeRecord*>> by_heads;
  for (const ShapeRecord& record : records)
    by_heads[record.shape.kv_heads].push_back(&record);
  std::string html;
  for (const auto& [heads, shapes] : by_heads) {
    std::set<int> batches;
    std::set<std::int64_t> lengths;
    for (const ShapeRecord* record : shapes)
      batches.insert(record->shape.batch), lengths.insert(record->shape.tokens);
    constexpr int kWide = 96, kHigh = 44, kLeft = 90, kTop = 40;
    const int width = kLeft + kWide * static_cast<int>(lengths.size()) + 10;
    const int height = kTop + kHigh * static_cast<int>(batches.size()) + 10;
    html += fmt::format(
        "<svg class=\"heat\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" "
        "aria-label=\"speed-up over the default, {} K/V heads\">\n",
        width, height, width, height, heads);
    html += fmt::format("<text x=\"4\" y=\"16\">{} K/V heads</text>\n", heads);
    for (const std::int64_t tokens : lengths) {
      const auto column = std::distance(lengths.begin(), lengths.find(tokens));
      html += fmt::format("<text x=\"{}\" y=\"32\" text-anchor=\"middle\">{}</text>\n",
                          kLeft + kWide * column + kWide / 2, tokens);
    }
    for (const int batch : batches) {
      const auto row = std::distance(batches.begin(), batches.find(batch));
      html += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">batch {}</text>\n", kLeft - 8,
                          kTop + kHigh * row + kHigh / 2 + 4, batch);
    }
    for (const ShapeRecord* record : shapes) {
      const auto column = std::distance(lengths.begin(), lengths.find(record->shape.tokens));
      const auto row = std::distance(batches.begin(), batches.find(record->shape.batch));
      const double gain = speed_up(*record);
      html += fmt::format(
          "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"><title>{}</title></rect>"
          "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" style=\"fill:#111\">{:.2f}x</text>\n",
          kLeft + kWide * column + 1, kTop + kHigh * row + 1, kWide - 2, kHigh - 2, colour_of(gain),
          escaped(shape_name(record->shape)), kLeft + kWide * column + kWide / 2,
          kTop + kHigh * row + kHigh / 2 + 4, gain);
    }
    html += "</svg>\n";
  }
  return html;
}

/// Timed trials, fastest first.
std::vector<std::size_t> timed_trials(const ShapeRecord& record) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < record.trials.size(); ++i) {
    if (record.trials[i].passes > 0) order.push_back(i);
  }
  // By ratio: times of different rounds are not to be compared.
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return record.trials[i].ratio; });
  return order;
}

/// What each candidate reads a second, against what the memory gives.
std::string roofline(const TuneSubject& subject, const ShapeRecord& record) {
  const std::vector<std::size_t> order = timed_trials(record);
  constexpr int kWidth = 640, kHeight = 220, kLeft = 60, kBottom = 30, kTop = 12;
  const auto y_of = [&](double gbps) {
    return kTop + (kHeight - kTop - kBottom) * (1 - gbps / (1.1 * subject.read_gbps));
  };
  std::string svg = fmt::format(
      "<svg class=\"roofline\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"bytes a second of each candidate\">\n",
      kWidth, kHeight, kWidth, kHeight);
  svg += fmt::format(
      "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#c5483c\" "
      "stroke-dasharray=\"5 4\"/><text x=\"{1}\" y=\"{3:.1f}\" text-anchor=\"end\">memory: {4:.0f} "
      "GB/s</text>\n",
      kLeft, kWidth - 10, y_of(subject.read_gbps), y_of(subject.read_gbps) - 4, subject.read_gbps);
  for (const double share : {0.0, 0.25, 0.5, 0.75}) {
    const double y = y_of(share * subject.read_gbps);
    svg += fmt::format(
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#9aa3b2\" "
        "stroke-opacity=\".35\"/><text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:.0f} %</text>\n",
        kLeft, kWidth - 10, y, kLeft - 6, y + 4, 100 * share);
  }
  for (std::size_t place = 0; place < order.size(); ++place) {
    const Trial& trial = record.trials[order[place]];
    const double gbps = record.bytes / trial.us / 1e3;
    const double x = kLeft + (kWidth - 20.0 - kLeft) * (static_cast<double>(place) + 0.5) /
                                 static_cast<double>(std::max<std::size_t>(order.size(), 1));
    const char* colour = order[place] == record.best ? "#238b45" : order[place] == 0 ? "#c5483c" : "#4878a8";
    svg += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\" fill=\"{}\"><title>{}: {:.2f} us, {:.1f} "
        "GB/s</title></circle>\n",
        x, y_of(gbps), order[place] == record.best || order[place] == 0 ? 5 : 3, colour,
        escaped(difference(record.tunings[order[place]], subject, record.tunings.front())), trial.us, gbps);
  }
  svg += fmt::format(
      "<text x=\"{}\" y=\"{}\">candidates, fastest first (green: chosen, red: default)</text></svg>\n", kLeft,
      kHeight - 8);
  return svg;
}

std::string trial_table(const TuneSubject& subject, const ShapeRecord& record) {
  std::string html =
      "<table class=\"trials\"><tr><th class=\"t\">Tuning</th><th>us</th><th>to "
      "default</th><th>±</th><th>passes</th>"
      "<th>GB/s</th><th class=\"t\">outcome</th></tr>\n";
  const auto row = [&](std::size_t i) {
    const Trial& trial = record.trials[i];
    const std::string name = escaped(difference(record.tunings[i], subject, record.tunings.front()));
    if (trial.state == Trial::State::failed) {
      html += fmt::format(
          "<tr class=\"failed\"><td class=\"t\"><code>{}</code></td><td colspan=\"5\"></td>"
          "<td class=\"t\">failed: {}</td></tr>\n",
          name, escaped(trial.why));
      return;
    }
    html += fmt::format(
        "<tr{}><td class=\"t\"><code>{}</code></td><td>{:.2f}</td><td>{:.3f}</td><td>{:.3f}</td><td>{}"
        "</td><td>{:.1f}</td><td class=\"t\">{}</td></tr>\n",
        i == record.best ? " class=\"best\"" : "", name, trial.us, trial.ratio, trial.spread, trial.passes,
        record.bytes / trial.us / 1e3,
        i == record.best                       ? "chosen"
        : trial.state == Trial::State::dropped ? "dropped"
                                               : "kept to the end");
  };
  for (const std::size_t i : timed_trials(record))
    row(i);
  for (std::size_t i = 0; i < record.trials.size(); ++i) {
    if (record.trials[i].state == Trial::State::failed && record.trials[i].passes == 0) row(i);
  }
  return html + "</table>\n";
}

std::string sensitivities(const TuneSubject& subject, const std::vector<codegen::TuningParameter>& parameters,
                          const ShapeRecord& record) {
  constexpr int kRow = 18, kLeft = 190, kScale = 220, kWidth = 640;
  std::string bars,
      table =
          "<table class=\"sensitivity\"><tr><th class=\"t\">parameter</th><th>value</th><th>best with it</th>"
          "<th>trials</th></tr>\n";
  int y = 6;
  for (const codegen::TuningParameter& parameter : parameters) {
    if (parameter.dense) continue;
    for (const ValueCost& cost : sensitivity(record, parameter, subject.spec, subject.target)) {
      const double length =
          std::clamp(kScale * (cost.ratio - 1), 0.0, static_cast<double>(kWidth - kLeft - 70));
      bars += fmt::format(
          "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}={}</text><rect x=\"{}\" y=\"{}\" "
          "width=\"{:.1f}\" height=\"{}\" fill=\"#4878a8\"/><text x=\"{:.1f}\" y=\"{}\">+{:.1f} "
          "%</text>\n",
          kLeft - 8, y + 12, parameter.key, escaped(cost.value), kLeft, y + 2, length + 1, kRow - 5,
          kLeft + length + 8, y + 12, 100 * (cost.ratio - 1));
      table += fmt::format("<tr><td class=\"t\">{}</td><td>{}</td><td>{:.3f}x</td><td>{}</td></tr>\n",
                           parameter.key, escaped(cost.value), cost.ratio, cost.trials);
      y += kRow;
    }
    y += 6;
  }
  return fmt::format(
      "<svg class=\"sensitivity\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\" "
      "aria-label=\"time lost by each value\">\n{2}</svg>\n"
      "<details><summary>as a table</summary>{3}</table></details>\n",
      kWidth, y, bars, table);
}

std::string excluded_table(const ShapeRecord& record) {
  std::string html =
      "<table class=\"excluded\"><tr><th class=\"t\">Tuning</th><th class=\"t\">why</th></tr>\n";
  for (const codegen::ExcludedTuning& excluded : record.excluded) {
    html += fmt::format("<tr><td class=\"t\"><code>{}</code></td><td class=\"t\">{}</td></tr>\n",
                        escaped(excluded.tuning), escaped(excluded.why));
  }
  return html + "</table>\n";
}

}  // namespace

std::vector<ValueCost> sensitivity(const ShapeRecord& record, const codegen::TuningParameter& parameter,
                                   const std::string& spec_text, const std::string& target) {
  const Spec spec = Spec::parse(spec_text);
  std::vector<ValueCost> costs;
  double best = INFINITY;
  for (const std::string& value : parameter.values) {
    ValueCost cost{value, INFINITY, 0};
    for (std::size_t i = 0; i < record.trials.size(); ++i) {
      if (record.trials[i].passes == 0) continue;
      if (codegen::tuning_value(Tuning::parse(record.tunings[i], spec, target), parameter.key) != value)
        continue;
      cost.ratio = std::min(cost.ratio, record.trials[i].ratio);
      ++cost.trials;
    }
    best = std::min(best, cost.ratio);
    if (cost.trials > 0) costs.push_back(cost);
  }
  for (ValueCost& cost : costs)
    cost.ratio /= best;
  return costs;
}

std::string tuning_report(const std::vector<TunedSpec>& specs) {
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\">\n<title>adamas tune</title><style>{}</style></head><body>\n"
      "<h1>Tuning report</h1>\n",
      kStyle);
  for (const auto& [subject, parameters, records] : specs) {
    html += fmt::format(
        "<p>{} · target <code>{}</code> · {} · adamas {} · measured read bandwidth {:.0f} GB/s</p>\n"
        "<p><code>{}</code></p>\n",
        escaped(subject.device_name), escaped(subject.target), escaped(subject.driver),
        escaped(subject.library), subject.read_gbps, escaped(subject.spec));
    html += "<h2>What was chosen</h2>\n" + summary_table(subject, records);
    html += "<h2>Speed-up over the default, by shape</h2>\n" + heat_maps(records);
    for (const ShapeRecord& record : records) {
      html += fmt::format("<h2>{}</h2>\n", escaped(shape_name(record.shape)));
      html += "<h3>Candidates against the memory's bandwidth</h3>\n" + roofline(subject, record);
      html += "<details><summary>all candidates</summary>\n" + trial_table(subject, record) + "</details>\n";
      html += "<h3>What each value costs, with the others at their best</h3>\n" +
              sensitivities(subject, parameters, record);
      if (record.excluded.empty()) continue;
      html += fmt::format("<details><summary>{} combinations were not tried</summary>\n",
                          record.excluded.size()) +
              excluded_table(record) + "</details>\n";
    }
  }
  return html + "</body></html>\n";
}

}  // namespace adamas::tools
