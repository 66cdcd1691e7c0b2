"""Exceptions of the package. The extension module raises them through of_status and of_argument."""

from __future__ import annotations


class Error(RuntimeError):
    """A call that failed.

    status  one word: 'unavailable', 'compile_failed', 'device_error', ... (adamas_status of adamas.h)
    field   the input at fault: an argument, a Spec key, a file
    value   what it was
    rule    what it must be
    hint    the way out; may be empty
    """

    def __init__(
        self, message: str, status: str = "", field: str = "", value: str = "", rule: str = "", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.value = value
        self.rule = rule
        self.hint = hint


class InvalidArgument(Error, ValueError):
    """An argument of the wrong device, dtype, stride, shape or value. Nothing was enqueued."""


class InvalidSpec(InvalidArgument):
    """A Spec or Tuning that cannot be, or that the backend cannot generate."""


_CLASSES = {"invalid_argument": InvalidArgument, "invalid_spec": InvalidSpec, "unsupported": InvalidSpec}

_COMPILER_HINT = (
    "This package carries kernels for the common shapes (adamas.baseline_specs()). For others it needs its CPU "
    "compiler: apt-get install llvm-19-dev libclang-19-dev libclang-cpp19-dev liblld-19-dev libcli11-dev, then pip "
    "install the source again, which builds adamas-cc where it finds them; or set ADAMAS_CC to an adamas-cc, or "
    "packs= to a pack of `adamas precompile`."
)


def of_status(status: str, message: str, field: str, value: str, rule: str, hint: str) -> Error:
    """What a failed C call raises."""
    if status == "unavailable" and "adamas-cc" in message:
        message, hint = f"{message}. {_COMPILER_HINT}", _COMPILER_HINT
    return _CLASSES.get(status, Error)(message, status, field, value, rule, hint)


def of_argument(name: str, came: str, wanted: str) -> InvalidArgument:
    """What an argument that does not fit raises."""
    return InvalidArgument(f"{name}: {came}; wanted {wanted}", "invalid_argument", name, came, wanted)
