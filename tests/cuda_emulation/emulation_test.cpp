// The emulation itself: what a kernel may not do throws, so that the other tests can find it.
#include <doctest/doctest.h>

#include <string>

#include "tests/cuda_emulation/block.hpp"
#include "tests/cuda_emulation/device.hpp"

namespace {

using namespace adamas::cuda_emulation;

struct Shared {
  Mailbox mailbox;
  alignas(16) unsigned words[32];
};

Shared& shared() { return *reinterpret_cast<Shared*>(dynamic_shared); }

/// Runs `kernel` once, as a cluster of two blocks of a warp each, in the grids of several schedules.
void run(EntryPoint kernel) {
  constexpr int kNoSpec = -1;
  const Registration registration(kNoSpec, "decode", kernel);
  const adamas::codegen::Grid grid{
      .x = 2, .y = 16, .z = 1, .threads = 32, .shared_bytes = sizeof(Shared), .cluster = 2};
  launch(kNoSpec, adamas::codegen::Stage::decode, grid, {});
}

/// Opens this block's mailbox for a warp's words, and waits until the other's is open.
void open_mailboxes() {
  if (threadIdx.x == 0) {
    open_mailbox(shared().mailbox, 1);
    expect(shared().mailbox, sizeof shared().words);
  }
  cluster_arrive();
  cluster_wait();
}

void send_word() {
  send(&shared().words[threadIdx.x], 1 - cluster_rank(), threadIdx.x + 100 * cluster_rank(),
       shared().mailbox);
}

TEST_CASE("mail is there once it was waited for") {
  run([](const void*) {
    open_mailboxes();
    send_word();
    wait_for_mail(shared().mailbox, 0);
    CHECK(shared().words[31 - threadIdx.x] == 31 - threadIdx.x + 100 * (1 - cluster_rank()));
  });
}

TEST_CASE("mail that is not waited for comes late, if at all") {
  static int stale = 0;
  run([](const void*) {
    open_mailboxes();
    send_word();
    stale += shared().words[threadIdx.x] > 200;  // garbage
    wait_for_mail(shared().mailbox, 0);
  });
  CHECK(stale > 0);
  CHECK_THROWS_WITH(run([](const void*) {
                      open_mailboxes();
                      send_word();
                    }),
                    doctest::Contains("returned"));
}

TEST_CASE("mail for a mailbox that may not be open yet throws") {
  CHECK_THROWS_WITH(run([](const void*) {
                      if (threadIdx.x == 0) open_mailbox(shared().mailbox, 1);
                      send_word();
                      wait_for_mail(shared().mailbox, 0);
                    }),
                    doctest::Contains("not open"));
}

TEST_CASE("waiting for more mail than is sent throws") {
  CHECK_THROWS_WITH(run([](const void*) {
                      open_mailboxes();
                      if (threadIdx.x != 0) send_word();
                      wait_for_mail(shared().mailbox, 0);
                    }),
                    doctest::Contains("in vain"));
}

TEST_CASE("more mail than is expected throws") {
  CHECK_THROWS_WITH(run([](const void*) {
                      open_mailboxes();
                      send_word();
                      if (threadIdx.x == 0) send_word();
                      wait_for_mail(shared().mailbox, 0);
                      cluster_arrive();
                      cluster_wait();
                    }),
                    doctest::Contains("mail"));
}

TEST_CASE("the next delivery is expected before it is waited for, one at a time") {
  run([](const void*) {
    open_mailboxes();
    send_word();
    wait_for_mail(shared().mailbox, 0);
    __syncwarp();
    if (threadIdx.x == 0) expect(shared().mailbox, sizeof shared().words);
    cluster_arrive();
    cluster_wait();
    send_word();
    wait_for_mail(shared().mailbox, 1);
  });
  CHECK_THROWS_WITH(run([](const void*) {
                      open_mailboxes();
                      if (threadIdx.x == 0) expect(shared().mailbox, 4);
                      wait_for_mail(shared().mailbox, 0);
                    }),
                    doctest::Contains("twice at once"));
}

TEST_CASE("a delivery is complete once all have announced theirs, and it is there") {
  run([](const void*) {
    if (threadIdx.x == 0) open_mailbox(shared().mailbox, 2);
    cluster_arrive();
    cluster_wait();
    const unsigned words = 5 + cluster_rank();  // each block sends as many to both
    for (unsigned block = 0; block < 2; ++block) {
      if (threadIdx.x == 0) announce(shared().mailbox, block, 4 * words);
      if (threadIdx.x < words)
        send(&shared().words[16 * cluster_rank() + threadIdx.x], block, 7u, shared().mailbox);
    }
    wait_for_mail(shared().mailbox, 0);
    CHECK(shared().words[4] + shared().words[16 + 5] == 14);
  });
  CHECK_THROWS_WITH(run([](const void*) {
                      if (threadIdx.x == 0) open_mailbox(shared().mailbox, 2);
                      cluster_arrive();
                      cluster_wait();
                      if (threadIdx.x == 0) announce(shared().mailbox, cluster_rank(), 0);
                      wait_for_mail(shared().mailbox, 0);
                    }),
                    doctest::Contains("in vain"));
}

TEST_CASE("threads that wait at different barriers throw") {
  CHECK_THROWS_WITH(run([](const void*) {
                      open_mailboxes();
                      if (threadIdx.x < 16) wait_for_mail(shared().mailbox, 0);
                      __syncthreads();
                      send_word();
                    }),
                    doctest::Contains("in vain"));
  CHECK_THROWS_WITH(run([](const void*) {
                      if (threadIdx.x < 16) cluster_arrive();
                      __syncwarp();
                    }),
                    doctest::Contains("meets"));
}

TEST_CASE("writing outside shared memory throws") {
  CHECK_THROWS_WITH(run([](const void*) { dynamic_shared[sizeof(Shared) + threadIdx.x] = 1; }),
                    doctest::Contains("outside its shared memory"));
  CHECK_THROWS_WITH(run([](const void*) {
                      open_mailboxes();
                      send(reinterpret_cast<unsigned*>(&shared() + 1), 0, 1u, shared().mailbox);
                    }),
                    doctest::Contains("shared memory"));
}

TEST_CASE("copies are there once they were waited for, and late before") {
  static unsigned source[32];
  static int stale = 0;
  for (unsigned i = 0; i < 32; ++i) {
    source[i] = i;
  }
  run([](const void*) {
    copy_async<4>(&shared().words[threadIdx.x], &source[threadIdx.x]);
    end_copies();
    end_copies();  // an empty batch
    stale += shared().words[threadIdx.x] != threadIdx.x;
    wait_for_copies<1>();
    CHECK(shared().words[threadIdx.x] == threadIdx.x);
  });
  CHECK(stale > 0);
}

}  // namespace
