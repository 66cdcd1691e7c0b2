# Cross compilation for Linux on aarch64; CMAKE_CXX_COMPILER is given on the command line.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
