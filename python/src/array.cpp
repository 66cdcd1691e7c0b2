// Arrays of any DLPack producer: see array.hpp.
#include "array.hpp"

#include <algorithm>
#include <string_view>

#include "errors.hpp"

namespace adamas_python {
namespace {

using View = nb::ndarray<nb::ro>;
using WritableView = nb::ndarray<>;

struct Kind {
  ElementKind kind;
  const char* name;
  nb::dlpack::dtype_code code;
  int bits;
};
constexpr auto kFloat = nb::dlpack::dtype_code::Float, kInt = nb::dlpack::dtype_code::Int,
               kUInt = nb::dlpack::dtype_code::UInt, kBfloat = nb::dlpack::dtype_code::Bfloat;
constexpr auto kFloat8 = static_cast<nb::dlpack::dtype_code>(10);  // kDLFloat8_e4m3fn
constexpr Kind kKinds[] = {
    {ElementKind::f16, "float16", kFloat, 16}, {ElementKind::bf16, "bfloat16", kBfloat, 16},
    {ElementKind::f32, "float32", kFloat, 32}, {ElementKind::f8e4m3fn, "float8_e4m3fn", kFloat8, 8},
    {ElementKind::u8, "uint8", kUInt, 8},      {ElementKind::i8, "int8", kInt, 8},
    {ElementKind::i32, "int32", kInt, 32},     {ElementKind::i64, "int64", kInt, 64}};

const Kind& kind_of(ElementKind kind) { return *std::ranges::find(kKinds, kind, &Kind::kind); }

std::string dtype_name(const nb::dlpack::dtype& type) {
  for (const Kind& kind : kKinds) {
    if (static_cast<int>(kind.code) == type.code && kind.bits == type.bits && type.lanes == 1)
      return kind.name;
  }
  const char* base = "dtype";
  switch (static_cast<nb::dlpack::dtype_code>(type.code)) {
    case nb::dlpack::dtype_code::Int:
      base = "int";
      break;
    case nb::dlpack::dtype_code::UInt:
      base = "uint";
      break;
    case nb::dlpack::dtype_code::Float:
      base = "float";
      break;
    case nb::dlpack::dtype_code::Bool:
      base = "bool";
      break;
    default:
      base = "dtype of bits ";
  }
  return base + std::to_string(type.bits);
}

/// NumPy has no bfloat16 and no float8: an unsigned integer array of their bits is taken for them.
bool holds_bits(const nb::dlpack::dtype& type, ElementKind wanted) {
  return (wanted == ElementKind::bf16 || wanted == ElementKind::f8e4m3fn) &&
         type.code == static_cast<uint8_t>(kUInt) && type.bits == kind_of(wanted).bits;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string wanted_text(const std::vector<Extent>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i > 0 ? ", " : "");
    text += (shape[i].at_least ? ">= " : "") + std::to_string(shape[i].value) + " " + shape[i].what;
  }
  return text + ")";
}

std::string type_text(const nb::object& object) {
  return text_of(object.type().attr("__module__")) + "." + text_of(object.type().attr("__name__"));
}

/// ml_dtypes' arrays are NumPy's, whose DLPack knows no bfloat16: seen as the integers of their bits.
nb::object as_bits(const nb::object& object) {
  if (!nb::hasattr(object, "dtype") || !nb::hasattr(object, "view")) return object;
  const auto name = text_of(object.attr("dtype"));
  if (name == "bfloat16" && nb::hasattr(object, "__array_interface__")) return object.attr("view")("uint16");
  if (name == "float8_e4m3fn" && nb::hasattr(object, "__array_interface__"))
    return object.attr("view")("uint8");
  return object;
}

/// The capsule of the object's own __dlpack__, without any synchronisation: launches go to the stream that
/// the producer works on.
nb::object capsule_of(const nb::object& object, bool versioned) {
  const auto device = nb::cast<nb::tuple>(object.attr("__dlpack_device__")());
  const bool host = nb::cast<int>(nb::int_(device[0])) == nb::device::cpu::value;
  nb::dict arguments;
  if (!host) arguments["stream"] = -1;
  if (versioned) arguments["max_version"] = nb::make_tuple(1, 1);
  return object.attr("__dlpack__")(**arguments);
}

/// Unversioned capsules first: every producer has them, every nanobind reads them, and one that is to be
/// written must not be read-only, which they cannot say. What is only read may come versioned, or as a
/// buffer.
template <class AnyView>
std::optional<AnyView> view_of(const ArrayArgument& given, std::string& failure) {
  constexpr bool kRead = std::is_same_v<AnyView, View>;
  const nb::object object = as_bits(given.object);
  AnyView view;
  if (nb::hasattr(object, "__dlpack__")) {
    for (const bool versioned : {false, true}) {
      if (versioned && !kRead) break;
      try {
        if (nb::try_cast<AnyView>(capsule_of(object, versioned), view)) return view;
      } catch (nb::python_error& error) {
        if (!error.matches(PyExc_Exception)) throw;  // an interrupt
        if (failure.empty()) failure = text_of(error.value());
      }
    }
  }
  if (kRead && PyObject_CheckBuffer(object.ptr()) && nb::try_cast<AnyView>(object, view)) return view;
  return std::nullopt;
}

template <class AnyView>
Array described(const AnyView& view, const nb::object& owner) {
  Array array;
  array.data = const_cast<void*>(static_cast<const void*>(view.data()));
  array.owner = owner;  // keeps the memory; the view's own hold on it ends with the check
  for (std::size_t i = 0; i < view.ndim(); ++i) {
    array.shape.push_back(static_cast<std::int64_t>(view.shape(i)));
    array.strides.push_back(view.stride(i));
  }
  // Of a dimension of extent 1 producers say anything: what follows it, densely packed, is as true as that.
  std::int64_t after = 1;
  for (std::size_t i = array.shape.size(); i-- > 0;) {
    if (array.shape[i] <= 1) array.strides[i] = after;
    after = std::max<std::int64_t>(array.shape[i], 1) * array.strides[i];
  }
  return array;
}

void check_shape(const char* name, const Array& array, const Wanted& wanted) {
  bool fits = array.shape.size() == wanted.shape.size();
  for (std::size_t i = 0; fits && i < wanted.shape.size(); ++i) {
    const Extent& extent = wanted.shape[i];
    fits = extent.at_least ? array.shape[i] >= extent.value : array.shape[i] == extent.value;
  }
  if (!fits) refuse(name, "shape " + shape_text(array.shape), "shape " + wanted_text(wanted.shape));
}

void check_strides(const char* name, const Array& array, const Wanted& wanted) {
  std::int64_t dense = 1;
  for (std::size_t i = array.shape.size(); i-- > 0;) {
    const bool last = i + 1 == array.shape.size();
    if ((last || wanted.dense) && array.strides[i] != dense) {
      refuse(name, "strides " + shape_text(array.strides) + " of shape " + shape_text(array.shape),
             wanted.dense ? "a dense array, the last dimension fastest" : "a last dimension of stride 1");
    }
    if (array.strides[i] < 0 || (array.strides[i] == 0 && array.shape[i] > 1)) {
      refuse(name, "strides " + shape_text(array.strides) + " of shape " + shape_text(array.shape),
             "strides above 0");
    }
    dense *= array.shape[i];
  }
}

template <class AnyView>
Array checked_view(const char* name, const ArrayArgument& given, const DeviceId& device,
                   const Wanted& wanted) {
  std::string failure;
  const std::optional<AnyView> view = view_of<AnyView>(given, failure);
  if (!view && !failure.empty()) {
    refuse(name, type_text(given.object) + " that cannot be shared: " + failure,
           wanted.writable ? "an array that can be written" : "an array of DLPack");
  }
  if (!view) {
    throw nb::type_error((std::string(name) + ": " + type_text(given.object) +
                          "; wanted an array of DLPack: torch, CuPy, JAX, NumPy")
                             .c_str());
  }
  const DeviceId came{view->device_type(), view->device_id()};
  const bool same =
      came.type == device.type && (device.type == nb::device::cpu::value || came.index == device.index);
  if (!same) refuse(name, "an array on " + came.text(), "one on " + device.text() + ", the context's device");
  if (dtype_name(view->dtype()) != name_of(wanted.kind) && !holds_bits(view->dtype(), wanted.kind))
    refuse(name, "dtype " + dtype_name(view->dtype()), "dtype " + name_of(wanted.kind));
  Array array = described(*view, given.object);
  check_shape(name, array, wanted);
  check_strides(name, array, wanted);
  return array;
}

}  // namespace

std::string DeviceId::text() const {
  switch (type) {
    case nb::device::cpu::value:
      return "cpu";
    case nb::device::cuda::value:
      return "cuda:" + std::to_string(index);
    default:
      return "device type " + std::to_string(type) + " of DLPack, number " + std::to_string(index);
  }
}

std::string name_of(ElementKind kind) { return kind_of(kind).name; }
int bytes_of(ElementKind kind) { return kind_of(kind).bits / 8; }

ElementKind kind_of_type(const std::string& text) {
  if (text == "f16") return ElementKind::f16;
  if (text == "bf16") return ElementKind::bf16;
  if (text == "f32") return ElementKind::f32;
  if (text == "f8e4m3fn") return ElementKind::f8e4m3fn;
  return ElementKind::u8;  // q8_0: blocks of bytes
}

Array checked_array(const char* name, const ArrayArgument& given, const DeviceId& device,
                    const Wanted& wanted) {
  return wanted.writable ? checked_view<WritableView>(name, given, device, wanted)
                         : checked_view<View>(name, given, device, wanted);
}

Array checked_array(const char* name, const std::optional<ArrayArgument>& given, const DeviceId& device,
                    const Wanted& wanted) {
  return given ? checked_array(name, *given, device, wanted) : Array{};
}

}  // namespace adamas_python
