// Operations: the public calls as lists of stages over one argument block. The only code that launches.
#pragma once

#include <adamas/adamas.h>

#include <array>

#include "runtime/dispatch/plan.hpp"

namespace adamas::runtime {

void encode(const Kernel& kernel, const adamas_encode_args& args, Stream stream);
/// @param mend  rebuild: codes that differ are written
void check(const Kernel& kernel, const adamas_check_args& args, bool mend, Stream stream);
void codes_export(const Kernel& kernel, const adamas_codes_args& args, Stream stream);
void codes_import(const Kernel& kernel, const adamas_codes_args& args, Stream stream);

void select(const Plan& plan, const adamas_call& call, Stream stream);
void attend(const Plan& plan, const adamas_call& call, Stream stream);
void decode(const Plan& plan, const adamas_call& call, Stream stream);
void dense(const Plan& plan, const adamas_call& call, Stream stream);

/// One stage of a decode by stages, over what the stages before it left in the same workspace: for
/// measurements.
/// @throws codegen::Error as decode does; ADAMAS_INVALID_ARGUMENT for a stage that is none of kDecodeStages
void run_stage(const Plan& plan, const adamas_call& call, codegen::Stage stage, Stream stream);
inline constexpr std::array kDecodeStages{codegen::Stage::prepare_query, codegen::Stage::scan,
                                          codegen::Stage::select, codegen::Stage::attend,
                                          codegen::Stage::merge};

}  // namespace adamas::runtime
