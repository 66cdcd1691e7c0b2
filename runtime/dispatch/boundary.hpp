// The C boundary: exceptions become status codes and per-thread messages; handles and struct sizes are
// checked.
#pragma once

#include <adamas/adamas.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/dispatch/handle.hpp"

namespace adamas::runtime {

/// Remembers a failure for adamas_last_error. `context_id` 0: no context was involved.
void remember_error(std::uint64_t context_id, const codegen::Error& error) noexcept;
adamas_status recall_error(std::uint64_t context_id, adamas_error_info* info) noexcept;

/// Runs `body` and turns whatever it throws into a status.
template <class Body>
adamas_status guarded(std::uint64_t context_id, Body&& body) noexcept {
  try {
    try {
      body();
      return ADAMAS_OK;
    } catch (const codegen::Error&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw codegen::Error(ADAMAS_OUT_OF_MEMORY, "host memory", "", "ran out");
    } catch (const std::exception& error) {
      throw codegen::Error(ADAMAS_INTERNAL, "library", "", error.what(), "please report this");
    }
  } catch (const codegen::Error& error) {
    remember_error(context_id, error);
    return error.code();
  } catch (const std::bad_alloc&) {  // no memory for the message either
    return ADAMAS_OUT_OF_MEMORY;
  } catch (...) {
    return ADAMAS_INTERNAL;
  }
}

/// @throws codegen::Error(ADAMAS_INVALID_HANDLE) for null, foreign and destroyed handles.
template <class Handle>
Handle& checked_handle(Handle* handle, Magic magic, const char* what) {
  if (handle == nullptr) throw codegen::Error(ADAMAS_INVALID_HANDLE, what, "null", "must be a handle");
  if (handle->magic != magic) {
    throw codegen::Error(ADAMAS_INVALID_HANDLE, what, "not one",
                         "handle is of another type or was destroyed");
  }
  return *handle;
}

/// The id under which a handle's errors are remembered; 0 when it is no handle at all.
template <class Handle>
std::uint64_t error_scope(const Handle* handle, Magic magic) noexcept {
  if (handle == nullptr || handle->magic != magic) return 0;
  if constexpr (requires { handle->context; }) {
    return handle->context->id();
  } else if constexpr (requires { handle->kernel; }) {
    return handle->kernel->context().id();
  } else {
    return handle->plan->kernel().context().id();
  }
}

/// A caller's struct, read through its struct_size: fields it does not know are zero.
template <class Struct>
Struct sized_copy(const Struct* given, const char* what) {
  if (given == nullptr) throw codegen::Error(ADAMAS_INVALID_ARGUMENT, what, "null", "must point to a struct");
  if (given->struct_size < sizeof(std::size_t) || given->struct_size > 4096) {
    throw codegen::Error(ADAMAS_INVALID_ARGUMENT, std::string(what) + ".struct_size",
                         fmt::to_string(given->struct_size),
                         fmt::format("must be sizeof(struct), {} here", sizeof(Struct)));
  }
  Struct copy;
  std::memset(static_cast<void*>(&copy), 0, sizeof(Struct));  // not the defaults that C++ callers start from
  std::memcpy(&copy, given, std::min(given->struct_size, sizeof(Struct)));
  return copy;
}

/// Fills a caller's info struct up to its struct_size, and leaves struct_size as it was.
template <class Struct>
void sized_fill(Struct* out, Struct filled, const char* what) {
  const Struct given = sized_copy(out, what);
  filled.struct_size = given.struct_size;
  std::memcpy(out, &filled, std::min(given.struct_size, sizeof(Struct)));
}

template <class T>
void check_out(T* out, const char* what) {
  if (out == nullptr) throw codegen::Error(ADAMAS_INVALID_ARGUMENT, what, "null", "must point to the result");
}

}  // namespace adamas::runtime
