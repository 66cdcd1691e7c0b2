// Failures as Python exceptions: see errors.hpp. The classes themselves are Python, in adamas/_errors.py.
#include "errors.hpp"

namespace adamas_python {
namespace {

[[noreturn]] void raise(const nb::object& exception) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw nb::python_error();
}

nb::object errors() { return nb::module_::import_("adamas._errors"); }

}  // namespace

void check(adamas_status status) {
  if (status == ADAMAS_OK) return;
  adamas_error_info info{};
  info.message = info.field = info.value = info.rule = info.hint = "";
  adamas_last_error(nullptr, &info);
  raise(errors().attr("of_status")(adamas_status_name(status), info.message, info.field, info.value,
                                   info.rule, info.hint));
}

std::string text_of(nb::handle object, PyObject* (*as_text)(PyObject*)) {
  const auto text = nb::steal<nb::str>(as_text(object.ptr()));
  if (!text.is_valid()) throw nb::python_error();
  return text.c_str();
}

void refuse(const std::string& name, const std::string& came, const std::string& wanted) {
  raise(errors().attr("of_argument")(name, came, wanted));
}

}  // namespace adamas_python
