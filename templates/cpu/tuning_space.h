// What `adamas tune` tries on CPU targets: the values of each Tuning key.
#pragma once

namespace adamas::templates {

inline constexpr TuningValues kCpuTuningSpace[] = {
    {"scan_tile", "512 1024 2048 4096 8192", TuningMatters::always},
    {"chunk", "32 64 128 256", TuningMatters::always},
    {"dense_chunk", "128 256 512 1024", TuningMatters::dense},
};

}  // namespace adamas::templates
