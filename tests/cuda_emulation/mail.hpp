// What the blocks of an emulated cluster send into each other's shared memory. A word arrives when the
// scheduler delivers it, late and in an order of its own, and counts in a mailbox (an mbarrier in its
// target's memory) that is complete once all expected bytes are there. Misuse throws: mail for a mailbox that
// is not open yet, for a block that has returned, or beyond its memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_emulation/shared_memory.hpp"
#include "tests/oracle/random_data.hpp"

namespace adamas::cuda_emulation {

class Mail {
 public:
  /// A mailbox: the block that owns it, and where in that block's memory it is.
  using Address = std::pair<unsigned, std::size_t>;

  /// @param memories  of the cluster's blocks, by rank
  Mail(std::vector<SharedMemory>& memories, std::uint64_t seed) : memories_(memories), random_(seed) {}

  /// mbarrier.init for as many arrivals.
  void open(Address mailbox, unsigned senders);
  /// One of a delivery's arrivals, with the bytes that it expects.
  void expect(Address mailbox, std::uint64_t bytes);
  /// The same, sent from another block: it takes its time as other mail does.
  void announce(Address mailbox, std::uint64_t bytes);

  /// Number of deliveries that are complete, for a thread that waits for delivery `delivery` and knows only
  /// whether an odd or an even one comes next.
  const unsigned& completed(Address mailbox, unsigned delivery);

  /// Sends `bytes` (4 or 16) to the place `to` in the memory of the mailbox's block.
  void send(Address mailbox, std::size_t to, const void* data, std::size_t bytes);
  /// Adds to the word at the place `to` in the memory of the mailbox's block.
  void add(Address mailbox, std::size_t to, std::uint32_t amount);

  /// Delivers a few of the words that are on their way. Whether that completed a mailbox.
  bool deliver_some();
  /// Delivers until a mailbox is complete. False if none will be.
  bool deliver_until_complete();

  /// Tells that a block has returned: it takes no more mail.
  void close(unsigned block) { returned_.push_back(block); }

  /// When all blocks have returned. @throws std::runtime_error if mail was not waited for.
  void check_all_read() const;

  /// What mailboxes still miss, in words.
  std::string incomplete() const;

  /// Deliveries to the mailbox that had the most.
  unsigned most_deliveries() const;

 private:
  struct Mailbox {
    unsigned senders = 0;        // arrivals of a delivery
    unsigned arrived = 0;        // of them, for this delivery
    unsigned completed = 0;      // deliveries
    std::int64_t missing = 0;    // bytes; negative: they came before they were announced
    std::uint64_t received = 0;  // of this delivery
  };
  struct Letter {
    Address mailbox;
    enum class Kind { announces, stores, adds } kind;  // one that announces has no bytes itself
    std::size_t to, bytes;
    unsigned char data[16];
  };

  Mailbox& mailbox_at(Address address, const char* operation);
  void post(Letter::Kind kind, Address mailbox, std::size_t to, const void* data, std::size_t bytes);
  void arrive(Mailbox& mailbox, std::uint64_t bytes);
  void complete_if_done(Mailbox& mailbox);
  void deliver_one();

  std::vector<SharedMemory>& memories_;
  oracle::Random random_;
  std::map<Address, Mailbox> mailboxes_;
  std::vector<Letter> letters_;  // on their way
  std::vector<unsigned> returned_;
  unsigned completions_ = 0;
};

}  // namespace adamas::cuda_emulation
