// The scheduler of emulated threads. See block.hpp.
#include "tests/cuda_emulation/block.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_emulation/fiber.hpp"
#include "tests/cuda_emulation/mail.hpp"
#include "tests/cuda_emulation/shared_memory.hpp"
#include "tests/oracle/random_data.hpp"

namespace adamas::cuda_emulation {

Index current_thread{}, current_block{}, current_grid{};
unsigned char* current_shared_memory = nullptr;

namespace {

constexpr unsigned kWarp = 32;

std::map<std::pair<int, std::string>, EntryPoint>& entry_points() {
  static std::map<std::pair<int, std::string>, EntryPoint> table;
  return table;
}

/// A barrier: who arrives waits until all living members have.
struct Barrier {
  int living = 0, waiting = 0;
  unsigned generation = 0;

  void arrive() {
    ++waiting;
    release_if_complete();
  }

  /// A thread that returns no longer counts.
  void leave() {
    --living;
    release_if_complete();
  }

 private:
  void release_if_complete() {
    if (waiting == 0 || waiting < living) return;
    waiting = 0;
    ++generation;
  }
};

struct Warp {
  Barrier barrier;
  // Two sets, used in turn: a lane may enter the next exchange while others still read this one.
  std::uint64_t values[2][kWarp];
  const char* operation = nullptr;  // that the lanes which have arrived do
  unsigned exchanges[kWarp] = {};
};

struct Copy {
  unsigned batch;
  unsigned char* to;
  const void* from;
  std::size_t bytes;
};

struct Thread {
  Fiber fiber;
  // What it waits for: this counter leaving this value.
  const unsigned* counter = nullptr;
  unsigned value = 0;
  const char* operation = nullptr;
  // Since when it has arrived at the cluster's barrier, if it has.
  bool arrived = false;
  unsigned cluster_generation = 0;

  std::vector<Copy> copies;  // on their way
  unsigned batch = 0;        // that the next copy belongs to

  bool can_run() const { return !fiber.is_finished() && (counter == nullptr || *counter != value); }
};

struct Block {
  Block(Index where, unsigned number, unsigned thread_count)
      : index(where), rank(number), threads(thread_count), warps((thread_count + kWarp - 1) / kWarp) {
    barrier.living = static_cast<int>(thread_count);
    for (unsigned t = 0; t < thread_count; ++t) {
      ++warps[t / kWarp].barrier.living;
    }
  }

  Index index;
  unsigned rank;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barrier;
  // Neighbouring blocks run their lanes in opposite orders.
  bool backwards() const { return (index.x + index.y + index.z) % 2 != 0; }
};

/// The cluster that runs. One at a time: kernels of one block keep shared memory in static variables.
class Cluster {
 public:
  Cluster(Index first, const codegen::Grid& grid, EntryPoint entry, const void* args)
      : entry_(entry),
        args_(args),
        random_(first.x + 1000u * first.y + 1000000u * first.z),
        mail_(memories_, random_.next()),
        late_(random_.integer(0, 1) == 0) {
    for (unsigned rank = 0; rank < grid.cluster; ++rank) {
      // NaNs and -1, or large numbers.
      const unsigned char garbage = random_.integer(0, 1) == 0 ? 0xff : 0x7f;
      blocks_.push_back(std::make_unique<Block>(Index{first.x + rank, first.y, first.z}, rank, grid.threads));
      memories_.emplace_back(grid.shared_bytes, garbage);
    }
    barrier_.living = static_cast<int>(grid.cluster * grid.threads);
  }

  LaunchFacts run() {
    std::size_t stack = 0;
    for (const auto& block : blocks_) {
      for (Thread& thread : block->threads) {
        thread.fiber.prepare(stack++, &Cluster::enter);
      }
    }
    while (barrier_.living > 0) {
      bool progress = false;
      for (const std::size_t rank : shuffled(blocks_.size())) {
        progress |= run_block(*blocks_[rank]);
        if (!late_) progress |= mail_.deliver_some();
      }
      if (!progress && !mail_.deliver_until_complete()) {
        throw std::runtime_error("threads wait in vain: " + who_waits());
      }
    }
    mail_.check_all_read();
    for (SharedMemory& memory : memories_) {
      memory.check_guards();
    }
    return {mail_.most_deliveries()};
  }

  void wait(const char* operation, Barrier& barrier) {
    const unsigned generation = barrier.generation;
    barrier.arrive();
    wait_while(operation, barrier.generation, generation);
  }

  const std::uint64_t* exchange(const char* operation, std::uint64_t value) {
    Warp& warp = block_->warps[current_thread.x / kWarp];
    const unsigned lane = current_thread.x % kWarp;
    const unsigned set = warp.exchanges[lane]++ % 2;
    if (warp.barrier.living != static_cast<int>(kWarp))
      throw std::runtime_error(std::string(operation) + " in a warp with lanes gone");
    if (warp.barrier.waiting == 0) warp.operation = operation;
    if (warp.operation != operation && std::strcmp(warp.operation, operation) != 0)
      throw std::runtime_error(std::string(operation) + " meets " + warp.operation);
    warp.values[set][lane] = value;
    wait(operation, warp.barrier);
    return warp.values[set];
  }

  void cluster_arrive() {
    Thread& thread = this_thread();
    if (thread.arrived) throw std::runtime_error("a thread arrives twice at the cluster's barrier");
    thread.arrived = true;
    thread.cluster_generation = barrier_.generation;
    barrier_.arrive();
  }

  void cluster_wait() {
    Thread& thread = this_thread();
    if (!thread.arrived) throw std::runtime_error("a thread waits at the cluster's barrier without arriving");
    wait_while("cluster_wait", barrier_.generation, thread.cluster_generation);
    thread.arrived = false;
  }

  void copy_later(void* to, const void* from, std::size_t bytes) {
    const auto offset = address_in(block_->rank, to).second;
    if (offset % bytes != 0 || reinterpret_cast<std::uintptr_t>(from) % bytes != 0)
      throw std::runtime_error("a copy to or from a misaligned address");
    if (offset + bytes > memories_[block_->rank].bytes())
      throw std::runtime_error("a copy beyond shared memory");
    Thread& thread = this_thread();
    thread.copies.push_back({thread.batch, static_cast<unsigned char*>(to), from, bytes});
    if (!late_) finish_copies(thread, thread.batch + 1);
  }

  void end_copies() { ++this_thread().batch; }

  void wait_for_copies(unsigned batches) {
    Thread& thread = this_thread();
    if (thread.batch > batches) finish_copies(thread, thread.batch - batches);
  }

  void wait_for_mail(const void* mailbox, unsigned delivery) {
    const Mail::Address address = address_in(block_->rank, mailbox);
    wait_while("wait_for_mail", mail_.completed(address, delivery), delivery);
    mail_.completed(address, delivery);  // throws if the next one has gone by meanwhile
  }

  /// The address in block `rank` of what is at `pointer` in this block.
  Mail::Address address_in(unsigned rank, const void* pointer) {
    const auto* byte = static_cast<const unsigned char*>(pointer);
    SharedMemory& memory = memories_[block_->rank];
    if (byte < memory.data() || byte >= memory.data() + memory.bytes()) {
      throw std::runtime_error("no address in dynamic shared memory");
    }
    return {rank, static_cast<std::size_t>(byte - memory.data())};
  }

  Block& block() { return *block_; }
  unsigned blocks() const { return static_cast<unsigned>(blocks_.size()); }
  Mail& mail() { return mail_; }

  static Cluster* current;

 private:
  static void enter() {
    try {
      current->entry_(current->args_);
    } catch (...) {
      current->error_ = std::current_exception();
    }
    current->leave();
  }

  std::vector<std::size_t> shuffled(std::size_t count) {
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t i = count; i > 1; --i) {
      std::swap(order[i - 1],
                order[static_cast<std::size_t>(random_.integer(0, static_cast<std::int64_t>(i) - 1))]);
    }
    return order;
  }

  /// Runs a block until all its threads wait for other blocks or have returned. False if none could go on.
  bool run_block(Block& block) {
    bool any = false, progress = true;
    while (progress) {
      progress = false;
      for (const std::size_t warp : shuffled(block.warps.size())) {
        progress |= run_warp(block, warp);
      }
      any |= progress;
    }
    return any;
  }

  /// Runs a warp until all its lanes wait for others or have returned: as far ahead of the other warps as the
  /// device's scheduler might let it get. False if no lane could go on.
  bool run_warp(Block& block, std::size_t warp) {
    bool any = false, progress = true;
    while (progress) {
      progress = false;
      for (std::size_t i = 0; i < kWarp; ++i) {
        const std::size_t t = warp * kWarp + (block.backwards() ? kWarp - 1 - i : i);
        if (t >= block.threads.size() || !block.threads[t].can_run()) continue;
        resume(block, t);
        if (error_) std::rethrow_exception(error_);
        progress = any = true;
      }
    }
    return any;
  }

  /// Runs a thread until it waits or returns.
  void resume(Block& block, std::size_t t) {
    block_ = &block;
    current_block = block.index;
    current_thread = {static_cast<unsigned>(t), 0, 0};
    current_shared_memory = memories_[block.rank].data();
    block.threads[t].counter = nullptr;
    block.threads[t].fiber.resume();
  }

  /// Copies of the batches before `end`.
  static void finish_copies(Thread& thread, unsigned end) {
    std::erase_if(thread.copies, [end](const Copy& copy) {
      if (copy.batch >= end) return false;
      std::memcpy(copy.to, copy.from, copy.bytes);
      return true;
    });
  }

  /// How many threads of each block wait where.
  std::string who_waits() const {
    std::string text;
    for (const auto& block : blocks_) {
      std::map<std::string, int> counts;
      for (const Thread& thread : block->threads) {
        ++counts[thread.fiber.is_finished() ? "returned" : thread.operation];
      }
      text += "block " + std::to_string(block->rank) + ":";
      for (const auto& [operation, count] : counts) {
        text += " " + operation + " " + std::to_string(count);
      }
      text += "; ";
    }
    return text + mail_.incomplete();
  }

  Thread& this_thread() { return block_->threads[current_thread.x]; }

  void wait_while(const char* operation, const unsigned& counter, unsigned value) {
    if (counter != value) return;
    Thread& thread = this_thread();
    thread.operation = operation;
    thread.counter = &counter;
    thread.value = value;
    thread.fiber.yield();
  }

  void leave() {
    block_->warps[current_thread.x / kWarp].barrier.leave();
    block_->barrier.leave();
    if (block_->barrier.living == 0) mail_.close(block_->rank);
    barrier_.leave();
    this_thread().fiber.finish();
  }

  EntryPoint entry_;
  const void* args_;
  oracle::Random random_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<SharedMemory> memories_;
  Mail mail_;
  const bool late_;  // mail and copies come only when nothing else can happen
  Barrier barrier_;
  Block* block_ = nullptr;  // of the running thread
  std::exception_ptr error_;
};

Cluster* Cluster::current = nullptr;

}  // namespace

Registration::Registration(int index, const char* stage, EntryPoint entry) {
  entry_points()[{index, stage}] = entry;
}

LaunchFacts launch(int index, codegen::Stage stage, const codegen::Grid& grid, const adamas_abi::Args& args) {
  const EntryPoint entry = entry_points().at({index, std::string(codegen::name(stage))});
  LaunchFacts facts;
  current_grid = {grid.x, grid.y, grid.z};
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; x += grid.cluster) {
        Cluster cluster({x, y, z}, grid, entry, &args);
        Cluster::current = &cluster;
        facts.most_deliveries = std::max(facts.most_deliveries, cluster.run().most_deliveries);
        Cluster::current = nullptr;
      }
    }
  }
  return facts;
}

unsigned cluster_blocks() { return Cluster::current->blocks(); }
unsigned cluster_rank() { return Cluster::current->block().rank; }

void block_barrier() { Cluster::current->wait("syncthreads", Cluster::current->block().barrier); }

const std::uint64_t* exchange(const char* operation, std::uint64_t value) {
  return Cluster::current->exchange(operation, value);
}

void cluster_arrive() {
  exchange("cluster_arrive", 0);  // the lanes of a warp do it together
  Cluster::current->cluster_arrive();
}

void cluster_wait() {
  exchange("cluster_wait", 0);
  Cluster::current->cluster_wait();
}

void copy_later(void* to, const void* from, std::size_t bytes) {
  Cluster::current->copy_later(to, from, bytes);
}
void end_copies() { Cluster::current->end_copies(); }
void wait_for_copies(unsigned batches) { Cluster::current->wait_for_copies(batches); }

void open_mailbox(const void* mailbox, unsigned senders) {
  Cluster& cluster = *Cluster::current;
  cluster.mail().open(cluster.address_in(cluster_rank(), mailbox), senders);
}

void expect_mail(const void* mailbox, unsigned bytes) {
  Cluster& cluster = *Cluster::current;
  cluster.mail().expect(cluster.address_in(cluster_rank(), mailbox), bytes);
}

void announce_mail(const void* mailbox, unsigned rank, unsigned bytes) {
  Cluster& cluster = *Cluster::current;
  cluster.mail().announce(cluster.address_in(rank, mailbox), bytes);
}

void wait_for_mail(const void* mailbox, unsigned delivery) {
  Cluster::current->wait_for_mail(mailbox, delivery);
}

void send_mail(const void* to, const void* mailbox, unsigned rank, const void* data, std::size_t bytes) {
  Cluster& cluster = *Cluster::current;
  cluster.mail().send(cluster.address_in(rank, mailbox), cluster.address_in(rank, to).second, data, bytes);
}

void add_mail(const void* to, const void* mailbox, unsigned rank, unsigned amount) {
  Cluster& cluster = *Cluster::current;
  cluster.mail().add(cluster.address_in(rank, mailbox), cluster.address_in(rank, to).second, amount);
}

}  // namespace adamas::cuda_emulation
