// What all generators share: the names of units and stages, and which generator serves a target.
#include "codegen/generator.hpp"

#include "codegen/target.hpp"

namespace adamas::codegen {
namespace {

struct StageEntry {
  std::string_view name;
  Unit unit;
};

// In the order of the enumerators.
constexpr std::array<std::string_view, kUnits.size()> kUnitNames{"encode", "select", "attend", "decode",
                                                                 "decode_pair", "decode_long"};
constexpr std::array<StageEntry, kStages.size()> kStageEntries{{
    {"encode", Unit::encode},
    {"export_codes", Unit::encode},
    {"import_codes", Unit::encode},
    {"check_codes", Unit::encode},
    {"prepare_query", Unit::select},
    {"scan", Unit::select},
    {"select", Unit::select},
    {"attend", Unit::attend},
    {"merge", Unit::attend},
    {"decode", Unit::decode},
    {"decode_pair", Unit::decode_pair},
    {"decode_long", Unit::decode_long},
}};

}  // namespace

std::string_view name(Unit unit) { return kUnitNames[static_cast<std::size_t>(unit)]; }

std::string_view name(Stage stage) { return kStageEntries[static_cast<std::size_t>(stage)].name; }

std::string entry_name(Stage stage) { return "adamas_" + std::string(name(stage)); }

Unit unit_of(Stage stage) { return kStageEntries[static_cast<std::size_t>(stage)].unit; }

const Generator& generator_for(std::string_view target) {
  return is_cuda_target(target) ? cuda_generator() : cpu_generator();
}

}  // namespace adamas::codegen
