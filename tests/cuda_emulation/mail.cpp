// Mailboxes and mail of a cluster. See mail.hpp.
#include "tests/cuda_emulation/mail.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace adamas::cuda_emulation {
namespace {

constexpr std::uint64_t kOpen = 0x6d61696c626f7821;  // in shared memory where a mailbox is
constexpr std::int64_t kMostBytes = (1 << 20) - 1;   // that an mbarrier can count

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

}  // namespace

void Mail::open(Address address, unsigned senders) {
  const auto [block, offset] = address;
  if (offset % sizeof kOpen != 0 || offset + sizeof kOpen > memories_[block].bytes()) {
    fail("a mailbox outside shared memory");
  }
  if (mailboxes_.contains(address)) fail("a mailbox is opened twice");
  std::memcpy(memories_[block].data() + offset, &kOpen, sizeof kOpen);
  if (senders == 0) fail("a mailbox for nobody's mail");
  mailboxes_[address].senders = senders;
}

void Mail::expect(Address address, std::uint64_t bytes) { arrive(mailbox_at(address, "expect"), bytes); }

void Mail::announce(Address address, std::uint64_t bytes) {
  if (address.first >= memories_.size()) fail("mail for a block beyond the cluster");
  mailbox_at(address, "announce");
  letters_.push_back({address, Letter::Kind::announces, 0, bytes, {}});
}

const unsigned& Mail::completed(Address address, unsigned delivery) {
  const Mailbox& mailbox = mailbox_at(address, "wait_for_mail");
  if (mailbox.completed != delivery && mailbox.completed != delivery + 1) {
    fail("waits for delivery " + std::to_string(delivery) + " when " + std::to_string(mailbox.completed) +
         " are complete: parity would mistake it for another");
  }
  return mailbox.completed;
}

void Mail::send(Address address, std::size_t to, const void* data, std::size_t bytes) {
  post(Letter::Kind::stores, address, to, data, bytes);
}

void Mail::add(Address address, std::size_t to, std::uint32_t amount) {
  post(Letter::Kind::adds, address, to, &amount, sizeof amount);
}

void Mail::post(Letter::Kind kind, Address address, std::size_t to, const void* data, std::size_t bytes) {
  const unsigned block = address.first;
  if (block >= memories_.size()) fail("mail for a block beyond the cluster");
  mailbox_at(address, "send");
  if (to % bytes != 0) fail("mail to a misaligned address");
  if (to + bytes > memories_[block].bytes()) fail("mail to an address outside shared memory");
  Letter letter{address, kind, to, bytes, {}};
  std::memcpy(letter.data, data, bytes);
  letters_.push_back(letter);
}

bool Mail::deliver_some() {
  const unsigned before = completions_;
  const auto waiting = static_cast<std::int64_t>(letters_.size());
  for (std::int64_t i = random_.integer(0, waiting); i > 0; --i) {
    deliver_one();
  }
  return completions_ != before;
}

bool Mail::deliver_until_complete() {
  const unsigned before = completions_;
  while (completions_ == before && !letters_.empty()) {
    deliver_one();
  }
  return completions_ != before;
}

void Mail::check_all_read() const {
  if (!letters_.empty()) fail("blocks have returned while mail was on its way to them");
  for (const auto& [address, mailbox] : mailboxes_) {
    if (mailbox.received != 0 || mailbox.arrived != 0) fail("a mailbox was sent mail that nobody waits for");
  }
}

std::string Mail::incomplete() const {
  std::string text = "mailboxes (block, offset) miss:";
  for (const auto& [address, mailbox] : mailboxes_) {
    if (mailbox.missing == 0 && mailbox.arrived % mailbox.senders == 0) continue;
    text += " (" + std::to_string(address.first) + ", " + std::to_string(address.second) + ") " +
            std::to_string(mailbox.missing) + " bytes, " + std::to_string(mailbox.senders - mailbox.arrived) +
            " announcements";
  }
  return text;
}

unsigned Mail::most_deliveries() const {
  unsigned most = 0;
  for (const auto& [address, mailbox] : mailboxes_) {
    most = std::max(most, mailbox.completed);
  }
  return most;
}

Mail::Mailbox& Mail::mailbox_at(Address address, const char* operation) {
  const auto found = mailboxes_.find(address);
  if (found == mailboxes_.end()) fail(std::string(operation) + ": the mailbox is not open");
  if (std::memcmp(memories_[address.first].data() + address.second, &kOpen, sizeof kOpen) != 0) {
    fail(std::string(operation) + ": the mailbox was overwritten");
  }
  return found->second;
}

void Mail::arrive(Mailbox& mailbox, std::uint64_t bytes) {
  if (mailbox.arrived == mailbox.senders) fail("a mailbox expects mail twice at once");
  ++mailbox.arrived;
  mailbox.missing += static_cast<std::int64_t>(bytes);
  if (mailbox.missing > kMostBytes) fail("a mailbox expects more bytes than it can count");
  complete_if_done(mailbox);
}

void Mail::complete_if_done(Mailbox& mailbox) {
  if (mailbox.arrived < mailbox.senders || mailbox.missing != 0) return;
  ++mailbox.completed;
  ++completions_;
  mailbox.arrived = 0;
  mailbox.received = 0;
}

void Mail::deliver_one() {
  const auto last = static_cast<std::int64_t>(letters_.size()) - 1;
  std::swap(letters_[static_cast<std::size_t>(random_.integer(0, last))], letters_.back());
  const Letter letter = letters_.back();
  letters_.pop_back();
  const unsigned block = letter.mailbox.first;
  if (std::ranges::find(returned_, block) != returned_.end()) fail("mail for a block that has returned");
  Mailbox& mailbox = mailbox_at(letter.mailbox, "send");
  if (letter.kind == Letter::Kind::announces) return arrive(mailbox, letter.bytes);
  unsigned char* const to = memories_[block].data() + letter.to;
  if (letter.kind == Letter::Kind::adds) {
    std::uint32_t word = 0, amount = 0;
    std::memcpy(&word, to, sizeof word);
    std::memcpy(&amount, letter.data, sizeof amount);
    word += amount;
    std::memcpy(to, &word, sizeof word);
  } else {
    std::memcpy(to, letter.data, letter.bytes);
  }
  mailbox.missing -= static_cast<std::int64_t>(letter.bytes);
  mailbox.received += letter.bytes;
  complete_if_done(mailbox);
}

}  // namespace adamas::cuda_emulation
