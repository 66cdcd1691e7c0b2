// Prepares one kernel on the CPU and prints how many of its units were compiled here.
#include <adamas/adamas.hpp>

#include <cstdio>

int main() try {
  const adamas::Context context("cpu");
  std::printf("compiled %d\n",
              context.prepare("", {.max_batch = 1, .kv_heads = 1, .max_tokens = 64}).info().compiles);
} catch (const adamas::Error& error) {
  std::printf("%s: %s\n", adamas_status_name(error.status()), error.what());
  return 1;
}
