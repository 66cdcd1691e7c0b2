// The program `adamas`. Everything it does is in the library beside it, where tests reach it.
#include "tools/cli.hpp"

int main(int argc, char** argv) { return adamas::tools::run_cli(argc, argv); }
