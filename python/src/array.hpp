// Arrays of any DLPack producer, looked at and never copied, and the check of one against what an argument
// wants.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace adamas_python {

namespace nb = nanobind;

/// An argument that is an array: checked when used, by its name.
struct ArrayArgument {
  nb::object object;
};

/// Where a context's memory is, in DLPack's terms.
struct DeviceId {
  int type = nb::device::cpu::value;
  int index = 0;
  std::string text() const;
};

enum class ElementKind { f16, bf16, f32, f8e4m3fn, u8, i8, i32, i64 };
std::string name_of(ElementKind kind);
int bytes_of(ElementKind kind);
/// @param text  a Spec's kv_type, q_type or out_type; q8_0 is bytes
ElementKind kind_of_type(const std::string& text);

/// One dimension of the shape that an argument wants.
struct Extent {
  std::int64_t value;
  const char* what;
  bool at_least = false;
};

struct Wanted {
  ElementKind kind;
  std::vector<Extent> shape;
  bool dense = false;     ///< C-contiguous; else only the last dimension must be
  bool writable = false;  ///< an output
};

/// What was given, with what keeps it alive.
struct Array {
  void* data = nullptr;
  std::vector<std::int64_t> shape, strides;  ///< strides in elements; of an extent of 1, the dense one
  nb::object owner;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

/// @throws  adamas.InvalidArgument naming the argument, what came and what was wanted; TypeError for what is
/// no array
Array checked_array(const char* name, const ArrayArgument& given, const DeviceId& device,
                    const Wanted& wanted);
/// The same for what may be left out: data is null then.
Array checked_array(const char* name, const std::optional<ArrayArgument>& given, const DeviceId& device,
                    const Wanted& wanted);

}  // namespace adamas_python

namespace nanobind::detail {

/// Stubs show adamas.Array, a protocol; whatever object comes is taken, so that the error can name the
/// argument.
template <>
struct type_caster<adamas_python::ArrayArgument> {
  NB_TYPE_CASTER(adamas_python::ArrayArgument, const_name("adamas._array.Array"))
  bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
    if (source.is_none()) return false;
    value.object = borrow(source);
    return true;
  }
  static handle from_cpp(const adamas_python::ArrayArgument& argument, rv_policy, cleanup_list*) noexcept {
    return argument.object.inc_ref();
  }
};

}  // namespace nanobind::detail
