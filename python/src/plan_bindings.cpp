// Plan as Python sees it.

#include "plan.hpp"

namespace adamas_python {
namespace {

using OptionalArray = std::optional<ArrayArgument>;

void select(const Plan& plan, const ArrayArgument& query, const CacheView& cache, const ArrayArgument& codes,
            const ArrayArgument& lengths, const ArrayArgument& positions, const ArrayArgument& counts,
            OptionalArray starts, OptionalArray row_budgets, OptionalArray query_thresholds, int window,
            bool slots, OptionalArray scores, OptionalArray query_codes, OptionalArray workspace,
            const Counters* counters, nb::object stream) {
  plan.call(adamas_select, {&query, &cache, &codes, &lengths, positions, counts, {}},
            {.starts = std::move(starts),
             .row_budgets = std::move(row_budgets),
             .query_thresholds = std::move(query_thresholds),
             .scores = std::move(scores),
             .query_codes = std::move(query_codes),
             .workspace = std::move(workspace),
             .window = window,
             .slots = slots,
             .counters = counters,
             .stream = std::move(stream)});
}

void attend(const Plan& plan, const ArrayArgument& query, const CacheView& cache,
            const ArrayArgument& lengths, const ArrayArgument& positions, const ArrayArgument& counts,
            const ArrayArgument& out, OptionalArray starts, std::optional<double> scale, double soft_cap,
            int window, OptionalArray sink_logits, OptionalArray lse, OptionalArray workspace,
            const Counters* counters, nb::object stream) {
  plan.call(adamas_attend, {&query, &cache, nullptr, &lengths, positions, counts, out},
            {.starts = std::move(starts),
             .sink_logits = std::move(sink_logits),
             .lse = std::move(lse),
             .workspace = std::move(workspace),
             .scale = scale,
             .soft_cap = soft_cap,
             .window = window,
             .counters = counters,
             .stream = std::move(stream)});
}

void decode(const Plan& plan, const ArrayArgument& query, const CacheView& cache, const ArrayArgument& codes,
            const ArrayArgument& lengths, const ArrayArgument& out, OptionalArray starts,
            OptionalArray row_budgets, OptionalArray query_thresholds, std::optional<double> scale,
            double soft_cap, int window, OptionalArray sink_logits, OptionalArray lse,
            OptionalArray positions, OptionalArray counts, bool slots, OptionalArray append_slots,
            OptionalArray key_thresholds, OptionalArray workspace, const Counters* counters,
            nb::object stream) {
  plan.call(adamas_decode, {&query, &cache, &codes, &lengths, std::move(positions), std::move(counts), out},
            {.starts = std::move(starts),
             .row_budgets = std::move(row_budgets),
             .query_thresholds = std::move(query_thresholds),
             .sink_logits = std::move(sink_logits),
             .lse = std::move(lse),
             .workspace = std::move(workspace),
             .append_slots = std::move(append_slots),
             .key_thresholds = std::move(key_thresholds),
             .scale = scale,
             .soft_cap = soft_cap,
             .window = window,
             .slots = slots,
             .counters = counters,
             .stream = std::move(stream)});
}

void dense(const Plan& plan, const ArrayArgument& query, const CacheView& cache, const ArrayArgument& lengths,
           const ArrayArgument& out, OptionalArray starts, std::optional<double> scale, double soft_cap,
           int window, OptionalArray sink_logits, OptionalArray lse, OptionalArray workspace,
           const Counters* counters, nb::object stream) {
  plan.call(adamas_dense, {&query, &cache, nullptr, &lengths, {}, {}, out},
            {.starts = std::move(starts),
             .sink_logits = std::move(sink_logits),
             .lse = std::move(lse),
             .workspace = std::move(workspace),
             .scale = scale,
             .soft_cap = soft_cap,
             .window = window,
             .counters = counters,
             .stream = std::move(stream)});
}

constexpr char kPlan[] =
    "Batch and policy of a call. Cheap to make, immutable, usable from any thread; made by Kernels.plan.\n\n"
    "rows = batch * query_rows; row r is query row r % query_rows of sequence r // query_rows. Query head h "
    "belongs\n"
    "to K/V head h // group. selections = query heads, or K/V heads with scope=kv_head. The plan owns a "
    "workspace,\n"
    "which serves one stream at a time: give each concurrent stream its own plan, or pass workspace=.\n\n"
    "Calls only enqueue, on the current stream of torch or CuPy, or on stream=; on the CPU they return when "
    "done.\n"
    "They never allocate, copy or synchronise, and release the GIL. Every call raises InvalidArgument (a "
    "ValueError)\n"
    "that names the argument, what came and what was wanted, and has then enqueued nothing.";

constexpr char kDecode[] =
    "codes -> selection -> exact attention of each query over its selected tokens.\n\n"
    "query             [rows, query heads, head_dim] of q_type, any strides, the last dimension dense\n"
    "cache             of Kernels.cache, with values (and table)\n"
    "codes             [>= code_bytes] uint8\n"
    "lengths           [batch] int32, tokens in the cache, the query rows' own included; 0 = inert row\n"
    "out               [rows, query heads, value_dim] of out_type, written; inert rows are zero\n"
    "starts            [batch] int32, index of position 0 in the sequence's row or table; None: 0\n"
    "row_budgets       [rows] int32, budgets below the Spec's\n"
    "query_thresholds  [kv_heads, buckets - 1] float32, needed with estimator=manhattan\n"
    "scale             logit scale; None: 1/sqrt(head_dim)\n"
    "soft_cap, window  needed with soft_cap=on, window=on\n"
    "sink_logits       [query heads] float32, needed with sink_logits=on\n"
    "lse               [rows, query heads] float32, written: natural log, -inf for an empty row\n"
    "positions         [rows, selections, budget] int32, written: ascending, the rest -1; slots=True: slots\n"
    "counts            [rows, selections] int32, written\n"
    "append_slots      [rows] int32, the slot of each row's own token, negative: none. Their codes are made "
    "first, as\n"
    "                  Kernels.encode makes them, so that a step is one call; codes are written\n"
    "key_thresholds    [kv_heads, buckets - 1] float32, needed with append_slots\n"
    "workspace         [>= workspace_bytes] uint8 in place of the plan's own\n"
    "counters          of Context.counters\n"
    "stream            CUstream as integer, or a stream of torch, CuPy, cuda.core; None: the current one";

}  // namespace

void bind_plan(nb::module_& module) {
  const auto none = nb::none();
  nb::class_<Plan>(module, "Plan", kPlan)
      .def_prop_ro("batch", &Plan::batch, "Sequences of a call.")
      .def_prop_ro(
          "rows", [](const Plan& self) { return self.info().rows; }, "batch * query_rows.")
      .def_prop_ro(
          "selections", [](const Plan& self) { return self.info().selections; }, "Selections a row.")
      .def_prop_ro(
          "workspace_bytes",
          [](const Plan& self) {
            return std::max(self.info().workspace_bytes, self.info().dense_workspace_bytes);
          },
          "Bytes that any call of the plan needs as workspace.")
      .def("select", &select, nb::arg("query"), nb::arg("cache"), nb::arg("codes"), nb::arg("lengths"),
           nb::arg("positions"), nb::arg("counts"), nb::kw_only(), nb::arg("starts") = none,
           nb::arg("row_budgets") = none, nb::arg("query_thresholds") = none, nb::arg("window") = 0,
           nb::arg("slots") = false, nb::arg("scores") = none, nb::arg("query_codes") = none,
           nb::arg("workspace") = none, nb::arg("counters") = none, nb::arg("stream") = none,
           "Queries and codes -> positions and counts; arguments as decode's. scores [rows, selections, "
           "max_tokens]\n"
           "int32, INT32_MIN where the row does not see; query_codes [rows, query heads, head_dim] int8.")
      .def("attend", &attend, nb::arg("query"), nb::arg("cache"), nb::arg("lengths"), nb::arg("positions"),
           nb::arg("counts"), nb::arg("out"), nb::kw_only(), nb::arg("starts") = none,
           nb::arg("scale") = none, nb::arg("soft_cap") = 0.0, nb::arg("window") = 0,
           nb::arg("sink_logits") = none, nb::arg("lse") = none, nb::arg("workspace") = none,
           nb::arg("counters") = none, nb::arg("stream") = none,
           "Exact attention over given positions and counts, as select writes them; arguments as decode's.")
      .def("decode", &decode, nb::arg("query"), nb::arg("cache"), nb::arg("codes"), nb::arg("lengths"),
           nb::arg("out"), nb::kw_only(), nb::arg("starts") = none, nb::arg("row_budgets") = none,
           nb::arg("query_thresholds") = none, nb::arg("scale") = none, nb::arg("soft_cap") = 0.0,
           nb::arg("window") = 0, nb::arg("sink_logits") = none, nb::arg("lse") = none,
           nb::arg("positions") = none, nb::arg("counts") = none, nb::arg("slots") = false,
           nb::arg("append_slots") = none, nb::arg("key_thresholds") = none, nb::arg("workspace") = none,
           nb::arg("counters") = none, nb::arg("stream") = none, kDecode)
      .def("dense", &dense, nb::arg("query"), nb::arg("cache"), nb::arg("lengths"), nb::arg("out"),
           nb::kw_only(), nb::arg("starts") = none, nb::arg("scale") = none, nb::arg("soft_cap") = 0.0,
           nb::arg("window") = 0, nb::arg("sink_logits") = none, nb::arg("lse") = none,
           nb::arg("workspace") = none, nb::arg("counters") = none, nb::arg("stream") = none,
           "Attention over all tokens of every row; arguments as decode's.");
}

}  // namespace adamas_python
