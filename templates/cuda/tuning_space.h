// What `adamas tune` tries on CUDA targets: the values of each Tuning key. Which of them exclude each other, or do
// not fit a Spec, the generator knows.
#pragma once

namespace adamas::templates {

inline constexpr TuningValues kCudaTuningSpace[] = {
    {"schedule", "cluster stages", TuningMatters::always},
    {"cluster", "0 1 2 3 4 8", TuningMatters::cluster},
    {"decode_threads", "0 128 256 512", TuningMatters::cluster},
    {"scan_tile", "512 1024 2048 4096", TuningMatters::stages},
    {"threads", "128 256 512", TuningMatters::stages},
    {"chunk", "32 64 128", TuningMatters::always},
    {"dense_chunk", "512 1024 2048 4096", TuningMatters::dense},
};

}  // namespace adamas::templates
