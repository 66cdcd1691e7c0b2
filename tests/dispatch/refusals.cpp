// Calls that the host can see are wrong: see guarantees.hpp.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/dispatch/guarantees.hpp"
#include "tests/dispatch/refusal.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

/// One way to break a valid argument block, and how it must be refused.
template <class Args>
struct Broken {
  std::string field;
  std::string rule;  ///< a part of it
  std::function<void(Args&)> change;
};

/// Null, and one byte off, of a pointer of the block.
template <class Args, class T>
void add_pointer(std::vector<Broken<Args>>& all, const std::string& field, T* Args::*member) {
  all.push_back({field, "must point to device memory", [member](Args& args) { args.*member = nullptr; }});
  all.push_back({field, "must be aligned to", [member](Args& args) {
                   args.*member = reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(args.*member) + 1);
                 }});
}

void check_refused(const Refusal& refusal, const std::string& field, const std::string& rule) {
  INFO("field ", field, ", rule ", rule, ": ", refusal.message);
  CHECK(refusal.status == ADAMAS_INVALID_ARGUMENT);
  CHECK(refusal.field == field);
  CHECK(contains(refusal.rule, rule));
  CHECK_FALSE(refusal.value.empty());
}

using BrokenCall = Broken<Call>;

/// Every broken call must be refused, and leave what calls write as it was.
void check_calls(const SmallProblem& problem, Operation operation, const std::vector<BrokenCall>& broken) {
  problem.poison_outputs();
  for (const auto& [field, rule, change] : broken) {
    Call call = problem.call();
    change(call);
    check_refused(refusal_of([&] { (problem.plan.*operation)(call, nullptr); }), field, rule);
  }
  problem.context.synchronize();
  CHECK(problem.outputs_are_poison());
}

/// What the forms of a cache add.
void check_bad_tables(const Context& context) {
  const auto misaligned = [](const std::int32_t*& pointer) {
    pointer = reinterpret_cast<const std::int32_t*>(reinterpret_cast<std::uintptr_t>(pointer) + 2);
  };
  const SmallProblem slots(context, {.spec = "head_dim=64 group=2 budget=16 cache_form=slots"});
  const SmallProblem csr(context, {.spec = "head_dim=64 group=2 budget=16 cache_form=csr page_size=8"});
  for (const Operation operation : {&Plan::select, &Plan::decode, &Plan::dense}) {
    check_calls(
        slots, operation,
        {{"cache.table", "must point", [](Call& call) { call.cache.table = nullptr; }},
         {"cache.table_stride", "must hold the 50 pages", [](Call& call) { call.cache.table_stride = 49; }}});
    check_calls(csr, operation,
                {{"cache.table", "must be aligned", [&](Call& call) { misaligned(call.cache.table); }},
                 {"cache.indptr", "must point", [](Call& call) { call.cache.indptr = nullptr; }},
                 {"cache.indptr", "must be aligned", [&](Call& call) { misaligned(call.cache.indptr); }},
                 {"cache.table_stride", "must be 1..", [](Call& call) { call.cache.table_stride = 0; }},
                 {"cache.table_stride", "must be 1..",
                  [](Call& call) { call.cache.table_stride = std::int64_t{1} << 31; }}});
  }
  const SmallProblem split(context, {.spec = "head_dim=64 group=2 budget=16 tables=split"});
  const SmallProblem pointers(context, {.spec = "head_dim=64 group=2 budget=16 cache_form=pointers"});
  for (const Operation operation : {&Plan::attend, &Plan::decode, &Plan::dense}) {
    check_calls(
        split, operation,
        {{"cache.value_table", "must point", [](Call& call) { call.cache.value_table = nullptr; }},
         {"cache.value_table", "must be aligned", [&](Call& call) { misaligned(call.cache.value_table); }}});
    check_calls(
        pointers, operation,
        {{"cache.page_addresses", "must point", [](Call& call) { call.cache.page_addresses = nullptr; }},
         {"cache.page_addresses", "must be aligned to 8",
          [](Call& call) {
            call.cache.page_addresses = reinterpret_cast<const void* const*>(
                reinterpret_cast<std::uintptr_t>(call.cache.page_addresses) + 4);
          }},
         {"cache.key_offset", "not negative", [](Call& call) { call.cache.key_offset = -16; }},
         {"cache.value_offset", "must be a multiple", [](Call& call) { call.cache.value_offset = 33; }},
         {"cache.key_head_stride", "at least the row's 64",
          [](Call& call) { call.cache.key_head_stride = 8; }},
         {"cache.value_token_stride", "at least the row's 64",
          [](Call& call) { call.cache.value_token_stride = -64; }},
         {"cache.table", "must point", [](Call& call) { call.cache.table = nullptr; }}});
  }
  const SmallProblem scaled(context, {.spec = "head_dim=64 group=2 budget=16 kv_type=f8e4m3fn"});
  for (const Operation operation : {&Plan::attend, &Plan::decode, &Plan::dense}) {
    check_calls(scaled, operation,
                {{"cache.key_scale", "must point", [](Call& call) { call.cache.key_scale = nullptr; }},
                 {"cache.value_scale", "must point", [](Call& call) { call.cache.value_scale = nullptr; }},
                 {"cache.value_scale", "must be aligned",
                  [](Call& call) {
                    call.cache.value_scale = reinterpret_cast<const float*>(
                        reinterpret_cast<std::uintptr_t>(call.cache.value_scale) + 2);
                  }},
                 {"cache.scale_stride", "must be 0", [](Call& call) { call.cache.scale_stride = 2; }},
                 {"cache.scale_stride", "must be 0", [](Call& call) { call.cache.scale_stride = -1; }}});
  }
  EncodeArgs unscaled = scaled.encode_args();
  unscaled.cache.key_scale = nullptr;
  check_refused(refusal_of([&] { scaled.kernel.encode(unscaled); }), "cache.key_scale", "must point");
  EncodeArgs encode = pointers.encode_args();
  encode.cache.page_addresses = nullptr;
  check_refused(refusal_of([&] { pointers.kernel.encode(encode); }), "cache.page_addresses", "must point");
  for (const Operation operation : {&Plan::decode, &Plan::dense}) {
    check_calls(slots, operation,
                {{"cache.key_token_stride", "at least the row's 64",
                  [](Call& call) { call.cache.key_token_stride = 32; }},
                 {"cache.value_token_stride", "at least the row's 64",
                  [](Call& call) { call.cache.value_token_stride = 0; }}});
  }
}

}  // namespace

void check_bad_call_arguments(const Context& context) {
  const SmallProblem problem(context,
                             {.spec = "head_dim=64 group=2 budget=16 estimator=manhattan page_size=8"});
  const std::int64_t pages = problem.pages_per_sequence;

  std::vector<BrokenCall> common;
  add_pointer(common, "workspace", &Call::workspace);
  add_pointer(common, "query", &Call::query);
  add_pointer(common, "lengths", &Call::lengths);
  const auto cache_pointer = [](std::vector<BrokenCall>& all, const std::string& field, auto member) {
    all.push_back(
        {field, "must point to device memory", [member](Call& call) { call.cache.*member = nullptr; }});
    all.push_back({field, "must be aligned to", [member](Call& call) {
                     auto& pointer = call.cache.*member;
                     pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(
                         reinterpret_cast<std::uintptr_t>(pointer) + 1);
                   }});
  };
  cache_pointer(common, "cache.table", &Cache::table);
  const std::vector<BrokenCall> more = {
      {"workspace_bytes", "needs at least", [](Call& call) { call.workspace_bytes = 0; }},
      {"query_head_stride", "at least the row's 64",
       [](Call& call) { call.query_row_stride = 256, call.query_head_stride = 63; }},
      {"query_head_stride", "at least the row's 64",
       [](Call& call) { call.query_row_stride = 256, call.query_head_stride = -64; }},
      {"query_row_stride", "at least the row's 64",
       [](Call& call) { call.query_row_stride = 8, call.query_head_stride = 64; }},
      {"cache.table_stride", "must hold the " + std::to_string(pages) + " pages",
       [=](Call& call) { call.cache.table_stride = pages - 1; }},
      {"starts", "must be aligned",
       [](Call& call) {
         call.starts =
             reinterpret_cast<const std::int32_t*>(reinterpret_cast<std::uintptr_t>(call.starts) + 2);
       }},
      {"row_budgets", "must be aligned",
       [](Call& call) {
         call.row_budgets =
             reinterpret_cast<const std::int32_t*>(reinterpret_cast<std::uintptr_t>(call.lengths) + 2);
       }},
      {"counters", "must be aligned to 16",
       [](Call& call) { call.counters = static_cast<char*>(call.counters) + 8; }},
  };
  common.insert(common.end(), more.begin(), more.end());

  std::vector<BrokenCall> selecting;
  add_pointer(selecting, "query_thresholds", &Call::query_thresholds);
  selecting.push_back({"codes", "must point", [](Call& call) { call.codes = nullptr; }});
  selecting.push_back({"scores", "must be aligned", [](Call& call) {
                         call.scores = reinterpret_cast<std::int32_t*>(
                             reinterpret_cast<std::uintptr_t>(call.positions) + 1);
                       }});

  std::vector<BrokenCall> listing;
  add_pointer(listing, "positions", &Call::positions);
  add_pointer(listing, "counts", &Call::counts);

  std::vector<BrokenCall> attending;
  add_pointer(attending, "out", &Call::out);
  cache_pointer(attending, "cache.key", &Cache::key);
  cache_pointer(attending, "cache.value", &Cache::value);
  const std::vector<BrokenCall> rows = {
      {"cache.key_page_stride", "at least the row's 64", [](Call& call) { call.cache.key_page_stride = 1; }},
      {"cache.key_token_stride", "at least the row's 64",
       [](Call& call) { call.cache.key_token_stride = 0; }},
      {"cache.value_head_stride", "at least the row's 64",
       [](Call& call) { call.cache.value_head_stride = -64; }},
      {"out_head_stride", "at least the row's 64",
       [](Call& call) { call.out_row_stride = 256, call.out_head_stride = 32; }},
      {"out_row_stride", "must not overlap",
       [](Call& call) { call.out_row_stride = 128, call.out_head_stride = 64; }},
      {"lse", "must be aligned",
       [](Call& call) {
         call.lse = reinterpret_cast<float*>(reinterpret_cast<std::uintptr_t>(call.lse) + 2);
       }},
      {"scale", "must be positive", [](Call& call) { call.scale = -1; }},
      {"scale", "must be positive", [](Call& call) { call.scale = std::nanf(""); }},
      {"scale", "must be positive and finite",
       [](Call& call) { call.scale = std::numeric_limits<float>::infinity(); }},
  };
  attending.insert(attending.end(), rows.begin(), rows.end());

  for (const Operation operation : {&Plan::select, &Plan::attend, &Plan::decode, &Plan::dense}) {
    check_calls(problem, operation, common);
  }
  for (const Operation operation : {&Plan::select, &Plan::decode})
    check_calls(problem, operation, selecting);
  for (const Operation operation : {&Plan::select, &Plan::attend})
    check_calls(problem, operation, listing);
  for (const Operation operation : {&Plan::attend, &Plan::decode, &Plan::dense})
    check_calls(problem, operation, attending);

  // Slots of new tokens, and what their codes are made with.
  const auto appending = [&](const auto& change) {
    return [&problem, change](Call& call) {
      call.append_slots = problem.lengths.as<std::int32_t>();
      call.key_thresholds = problem.key_thresholds.as<float>();
      change(call);
    };
  };
  check_calls(
      problem, &Plan::decode,
      {{"append_slots", "must be aligned", appending([](Call& call) {
          call.append_slots =
              reinterpret_cast<const std::int32_t*>(reinterpret_cast<std::uintptr_t>(call.append_slots) + 2);
        })},
       {"key_thresholds", "must point", appending([](Call& call) { call.key_thresholds = nullptr; })},
       {"key_thresholds", "must be aligned", appending([](Call& call) {
          call.key_thresholds =
              reinterpret_cast<const float*>(reinterpret_cast<std::uintptr_t>(call.key_thresholds) + 1);
        })}});

  check_bad_tables(context);

  // What a Spec adds to a call, or takes from it.
  const SmallProblem plain(context, {.spec = "head_dim=64 group=2 budget=16 lse=off"});
  check_calls(plain, &Plan::decode,
              {{"lse", "lse=on", [&](Call& call) { call.lse = plain.lse.as<float>(); }}});
  const SmallProblem rich(context,
                          {.spec = "head_dim=64 group=2 budget=16 soft_cap=on window=on sink_logits=on"});
  const DeviceMemory sinks(context, static_cast<std::size_t>(rich.query_heads()) * 4, 0);
  const auto with_sinks = [&](auto change) {
    return [&sinks, change](Call& call) {
      call.sink_logits = sinks.as<float>();
      change(call);
    };
  };
  check_calls(
      rich, &Plan::decode,
      {{"sink_logits", "must point", [](Call&) {}},
       {"soft_cap", "must be positive", with_sinks([](Call& call) { call.soft_cap = 0; })},
       {"soft_cap", "must be positive", with_sinks([](Call& call) { call.soft_cap = -1; })},
       {"soft_cap", "must be positive", with_sinks([](Call& call) { call.soft_cap = std::nanf(""); })},
       {"window", "at least 1", with_sinks([](Call& call) { call.window = 0; })}});
}

void check_bad_encode_arguments(const Context& context) {
  const SmallProblem problem(context, {});
  using BrokenEncode = Broken<EncodeArgs>;
  std::vector<BrokenEncode> broken;
  add_pointer(broken, "key_thresholds", &EncodeArgs::key_thresholds);
  const std::int64_t slots = problem.slots;
  const std::vector<BrokenEncode> more = {
      {"cache.key", "must point", [](EncodeArgs& args) { args.cache.key = nullptr; }},
      {"cache.key", "must be aligned",
       [](EncodeArgs& args) { args.cache.key = static_cast<const char*>(args.cache.key) + 1; }},
      {"cache.key_token_stride", "at least the row's 64",
       [](EncodeArgs& args) { args.cache.key_token_stride = 63; }},
      {"codes", "must point", [](EncodeArgs& args) { args.codes = nullptr; }},
      {"counters", "must be aligned",
       [](EncodeArgs& args) { args.counters = static_cast<char*>(args.counters) + 4; }},
      {"count", "must be 0..", [](EncodeArgs& args) { args.count = -1; }},
      {"count", "must be 0..",
       [&](EncodeArgs& args) {
         args.slots = problem.lengths.as<std::int32_t>(), args.count = std::int64_t{1} << 40;
       }},
      {"count", "must end within", [=](EncodeArgs& args) { args.count = slots + 1; }},
      {"count", "must end within", [](EncodeArgs& args) { args.first_slot = 1; }},
      {"first_slot", "must be 0..", [](EncodeArgs& args) { args.first_slot = -1; }},
      {"first_slot", "must be 0..", [=](EncodeArgs& args) { args.first_slot = slots + 1, args.count = 0; }},
      {"first_slot", "must be 0..",
       [](EncodeArgs& args) { args.first_slot = std::numeric_limits<std::int64_t>::max(); }},
      {"slots", "must be aligned",
       [&](EncodeArgs& args) {
         args.slots = reinterpret_cast<const std::int32_t*>(problem.lengths.as<char>() + 1);
       }},
  };
  broken.insert(broken.end(), more.begin(), more.end());
  problem.poison_outputs();
  for (const auto& [field, rule, change] : broken) {
    EncodeArgs args = problem.encode_args();
    change(args);
    check_refused(refusal_of([&] { problem.kernel.encode(args); }), field, rule);
  }

  const DeviceMemory bytes(context,
                           static_cast<std::size_t>(slots) * problem.shape.kv_heads * problem.spec.head_dim);
  const std::vector<Broken<CodesArgs>> broken_codes = {
      {"codes", "must point", [](CodesArgs& args) { args.codes = nullptr; }},
      {"bytes", "must point", [](CodesArgs& args) { args.bytes = nullptr; }},
      {"count", "must be 0..", [](CodesArgs& args) { args.count = -5; }},
      {"count", "must end within", [](CodesArgs& args) { args.first_slot = 1; }},
  };
  for (const auto& [field, rule, change] : broken_codes) {
    CodesArgs args{
        .codes = problem.codes.data(), .bytes = bytes.as<std::uint8_t>(), .first_slot = 0, .count = slots};
    change(args);
    check_refused(refusal_of([&] { problem.kernel.codes_export(args); }), field, rule);
    check_refused(refusal_of([&] { problem.kernel.codes_import(args); }), field, rule);
  }
  context.synchronize();
  CHECK(problem.outputs_are_poison());
  for (const auto byte : bytes.read<std::uint8_t>())
    REQUIRE(byte == 0xff);

  // Nothing to do is no error, and nothing is done.
  EncodeArgs none = problem.encode_args();
  none.count = 0;
  problem.kernel.encode(none);
  context.synchronize();
  CHECK(problem.outputs_are_poison());
}

void check_bad_sizes(const Context& context) {
  const std::string spec = "head_dim=64 group=2 budget=16";
  const struct {
    std::string field;
    Capacity capacity;
  } capacities[] = {
      {"capacity.max_batch", {.max_batch = 0, .kv_heads = 1, .max_tokens = 64}},
      {"capacity.max_batch", {.max_batch = -1, .kv_heads = 1, .max_tokens = 64}},
      {"capacity.kv_heads", {.max_batch = 1, .kv_heads = 0, .max_tokens = 64}},
      {"capacity.max_tokens", {.max_batch = 1, .kv_heads = 1, .max_tokens = 0}},
      {"capacity.max_tokens", {.max_batch = 1, .kv_heads = 1, .max_tokens = (std::int64_t{1} << 30) + 1}},
      {"capacity.max_slots", {.max_batch = 1, .kv_heads = 1, .max_tokens = 64, .max_slots = -1}},
      {"capacity.max_slots", {.max_batch = 60000, .kv_heads = 1, .max_tokens = 1 << 20}},
  };
  for (const auto& [field, capacity] : capacities) {
    const Refusal refusal = refusal_of([&, &given = capacity] { context.prepare(spec, given); });
    check_refused(refusal, field, "must");
    CHECK_FALSE(refusal.hint.empty());
  }

  const SmallProblem problem(context, {.sequences = {{1, 20}, {2, 30}}});
  for (const int batch : {0, -1, 3}) {
    check_refused(refusal_of([&] { problem.kernel.plan({.batch = batch}); }), "plan.batch", "must be 1..2");
  }

  // Packed sequences cannot be told apart without starts.
  const Kernel packed = context.prepare("head_dim=64 group=2 budget=16 cache_form=contiguous",
                                        {.max_batch = 2, .kv_heads = 2, .max_tokens = 30, .max_slots = 64});
  const Plan plan = packed.plan({.batch = 2});
  Call call = problem.call();
  call.starts = nullptr;
  const DeviceMemory workspace(context, plan.info().workspace_bytes);
  call.workspace = workspace.data();
  call.workspace_bytes = workspace.size();
  check_refused(refusal_of([&] { plan.decode(call); }), "starts", "must point to device memory");

  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{5000}}) {
    call = problem.call();
    call.struct_size = size;
    check_refused(refusal_of([&] { problem.plan.decode(call); }), "call.struct_size", "must be sizeof");
    EncodeArgs args = problem.encode_args();
    args.struct_size = size;
    check_refused(refusal_of([&] { problem.kernel.encode(args); }), "args.struct_size", "must be sizeof");
  }
}

void check_old_callers(const Context& context) {
  const SmallProblem problem(context, {.sequences = {{1, 40}, {2, 9}}});
  problem.encode();
  const Attended whole = problem.decode();

  // A caller that knows no field behind lse: what lies there is not read.
  Call call = problem.call();
  call.struct_size = offsetof(adamas_call, positions);
  call.positions = reinterpret_cast<std::int32_t*>(1);
  call.counts = reinterpret_cast<std::int32_t*>(1);
  call.counters = reinterpret_cast<void*>(1);
  problem.poison_outputs();
  problem.plan.decode(call);
  context.synchronize();
  CHECK(problem.out.read<std::uint16_t>() == whole.out);
  CHECK(problem.lse.read<float>() == whole.lse);
  for (const auto position : problem.positions.read<std::int32_t>())
    REQUIRE(position == -1);

  // dense_below reads as zero, although C++ callers start from -1.
  PlanOptions options{.batch = 2, .dense_below = 1000};
  options.struct_size = offsetof(adamas_plan_options, dense_below);
  const Plan plan = problem.kernel.plan(options);
  context.clear(problem.counters.data());
  plan.decode(problem.call());
  CHECK(context.read(problem.counters.data()).dense_short == 0);

  // An info struct is filled as far as the caller knows it.
  adamas_plan_info info{};
  info.struct_size = offsetof(adamas_plan_info, selections);
  info.selections = 12345;
  REQUIRE(adamas_plan_get_info(plan.get(), &info) == ADAMAS_OK);
  CHECK(info.rows == 2);
  CHECK(info.selections == 12345);
  CHECK(info.struct_size == offsetof(adamas_plan_info, selections));
}

}  // namespace adamas::tests
