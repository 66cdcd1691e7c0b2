// Failures as Python exceptions: what the C interface said, and what the binding itself finds wrong with an
// argument.
#pragma once

#include <adamas/adamas.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

namespace adamas_python {

namespace nb = nanobind;

/// Raises adamas.Error (or what of it fits the status) with what adamas_last_error says. OK does nothing.
/// The caller holds the GIL.
void check(adamas_status status);

/// Raises adamas.InvalidArgument, a ValueError: "NAME: CAME; wanted WANTED".
[[noreturn]] void refuse(const std::string& name, const std::string& came, const std::string& wanted);

/// str() or repr() of an object.
std::string text_of(nb::handle object, PyObject* (*as_text)(PyObject*) = PyObject_Str);

}  // namespace adamas_python
