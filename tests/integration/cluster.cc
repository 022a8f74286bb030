#include "tests/integration/cluster.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <stdlib.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/channel.h"
#include "common/status_macros.h"
#include "tests/integration/await_condition.h"

namespace lancet {
namespace {

// The distribution installs no stubs for grpc.health.v1, so its two messages are handled as bytes: an empty
// request asks for the server as a whole; field 1 of the response is the status, and 1 means SERVING.
constexpr char kHealthMethod[] = "/grpc.health.v1.Health/Check";
constexpr char kServingResponse[] = "\x08\x01";
constexpr std::chrono::seconds kHealthTimeout{5};

constexpr char kCoordinator[] = LANCET_BIN_DIR "/lancet-coordinator";
constexpr char kWorker[] = LANCET_BIN_DIR "/lancet-worker";

Health CheckHealth(const ClientOptions& options) {
  const auto channel = MakeChannel(options, {});
  if (!channel.ok()) return Health::kUnreachable;
  grpc::GenericStub stub(*channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kHealthTimeout);
  grpc::CompletionQueue queue;
  const grpc::Slice empty("");
  const auto call = stub.PrepareUnaryCall(&context, kHealthMethod, grpc::ByteBuffer(&empty, 1), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);  // ends by the call's deadline
  if (!status.ok()) return Health::kUnreachable;
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (response.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
  }
  return bytes == kServingResponse ? Health::kServing : Health::kNotServing;
}

}  // namespace

ClusterOptions NanoCluster(int world_size) {
  const std::string card = "--lancet_json=" LANCET_SOURCE_DIR "/tests/integration/nano.lancet.json";
  return {.model_dir = LANCET_SOURCE_DIR "/tests/data/nano",
          .world_size = world_size,
          .coordinator_flags = {card, "--max_steps=10000", "--drain_timeout=5m"},
          .worker_flags = {card, "--threads=1", "--max_pixels=65536"}};
}

ClusterOptions DemoCluster(int world_size) {
  return {.model_dir = LANCET_SOURCE_DIR "/models/demo",
          .world_size = world_size,
          .coordinator_flags = {},
          .worker_flags = {}};
}

absl::StatusOr<std::unique_ptr<Cluster>> Cluster::Start(ClusterOptions options) {
  std::string dir = (std::filesystem::temp_directory_path() / "lancet_cluster_XXXXXX").string();
  if (mkdtemp(dir.data()) == nullptr) return absl::UnknownError(absl::StrCat("cannot make ", dir));
  std::unique_ptr<Cluster> cluster(new Cluster(std::move(options), dir));
  if (const absl::Status begun = cluster->Begin(); !begun.ok()) {
    return absl::Status(begun.code(), absl::StrCat(begun.message(), "\n", cluster->Logs()));
  }
  return cluster;
}

Cluster::Cluster(ClusterOptions options, std::string dir)
    : options_(std::move(options)), dir_(std::move(dir)) {
  workers_.resize(static_cast<size_t>(options_.world_size * options_.groups));
}

Cluster::~Cluster() {
  workers_.clear();
  coordinator_.reset();
  hosts_.reset();  // writes to the folder
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

absl::Status Cluster::Begin() {
  if (options_.last_group_on_hosts) {
    auto hosts = HostNetwork::Create(options_.world_size, dir_ + "/network.log");
    if (hosts.ok()) {
      hosts_ = *std::move(hosts);
      // Whoever is not on loopback must prove something.
      secret_file_ = dir_ + "/secret";
      std::ofstream(secret_file_) << "a secret of the ranks of one test\n";
      std::error_code ignored;
      std::filesystem::permissions(secret_file_, std::filesystem::perms::owner_read, ignored);
    } else {
      printf("no hosts of their own: %s\n", std::string(hosts.status().message()).c_str());
    }
  }
  LANCET_RETURN_IF_ERROR(StartCoordinator());
  for (int worker = 0; worker < num_workers(); ++worker) {
    if (options_.relayed) {
      LANCET_ASSIGN_OR_RETURN(std::unique_ptr<Relay> relay, Relay::Start(worker_port_));
      relays_.push_back(std::move(relay));
    }
    LANCET_RETURN_IF_ERROR(StartWorker(worker));
  }
  LANCET_ASSIGN_OR_RETURN(client_, GenerationClient::Create(client_options()));
  return AwaitHealth(Health::kServing);
}

absl::Status Cluster::StartCoordinator() {
  const std::string port_file = dir_ + "/ports";
  std::filesystem::remove(port_file);
  std::vector<std::string> arguments = {
      kCoordinator, "--model_dir=" + options_.model_dir, absl::StrCat("--listen=127.0.0.1:", public_port_),
      absl::StrCat("--worker_listen=", hosts_ != nullptr ? "0.0.0.0:" : "127.0.0.1:", worker_port_),
      "--port_file=" + port_file};
  if (hosts_ != nullptr) arguments.push_back("--worker_secret_file=" + secret_file_);
  arguments.insert(arguments.end(), options_.coordinator_flags.begin(), options_.coordinator_flags.end());
  LANCET_ASSIGN_OR_RETURN(coordinator_, Process::Start(arguments, dir_ + "/coordinator.log"));
  const bool there = AwaitCondition(
      [&] { return std::filesystem::exists(port_file) || !coordinator_->Running(); }, kClusterDeadline);
  std::ifstream file(port_file);
  if (!there || !(file >> public_port_ >> worker_port_)) {
    return absl::UnavailableError("the coordinator did not say its ports");
  }
  if (!(file >> metrics_port_)) metrics_port_ = 0;
  address_ = absl::StrCat("127.0.0.1:", public_port_);
  return absl::OkStatus();
}

absl::Status Cluster::StartWorker(int worker) {
  const int group = worker / options_.world_size;
  const int host = HostOf(worker);
  const std::string coordinator =
      host >= 0 ? absl::StrCat(hosts_->gateway(), ":", worker_port_)
                : absl::StrCat("127.0.0.1:", options_.relayed ? relays_[worker]->port() : worker_port_);
  std::vector<std::string> arguments = {kWorker, "--model_dir=" + options_.model_dir,
                                        "--coordinator=" + coordinator,
                                        absl::StrCat("--rank=", worker % options_.world_size),
                                        absl::StrCat("--world_size=", options_.world_size)};
  if (options_.groups > 1) arguments.push_back(absl::StrCat("--group=g", group));
  for (const std::string& flag : options_.worker_flags) {
    arguments.push_back(absl::StrReplaceAll(flag, {{"{rank}", absl::StrCat(worker % options_.world_size)}}));
  }
  if (hosts_ != nullptr) arguments.push_back("--secret_file=" + secret_file_);
  if (host >= 0) {
    arguments.push_back(absl::StrCat("--host_name=host-", host));
    arguments.push_back(absl::StrCat("--collective_listen=", hosts_->address(host), ":0"));
    arguments = hosts_->OnHost(host, arguments);
  }
  LANCET_ASSIGN_OR_RETURN(workers_[worker],
                          Process::Start(arguments, absl::StrCat(dir_, "/worker-", worker, ".log")));
  return absl::OkStatus();
}

int Cluster::HostOf(int worker) const {
  const int first = num_workers() - options_.world_size;
  return hosts_ != nullptr && worker >= first ? worker - first : -1;
}

absl::Status Cluster::SetLink(int worker, bool up) {
  if (const int host = HostOf(worker); host >= 0) return hosts_->SetLink(host, up);
  if (!options_.relayed) return absl::FailedPreconditionError("this rank has no link that can be cut");
  if (up) {
    relays_[worker]->Heal();
  } else {
    relays_[worker]->Cut();
  }
  return absl::OkStatus();
}

std::string Cluster::worker_address() const { return absl::StrCat("127.0.0.1:", worker_port_); }

Health Cluster::GetHealth() const { return CheckHealth(client_options()); }

ClientOptions Cluster::client_options() const {
  ClientOptions options = options_.client;
  options.server = address_;
  return options;
}

absl::Status Cluster::AwaitHealth(Health health, absl::Duration timeout) const {
  if (AwaitCondition([&] { return GetHealth() == health; }, timeout)) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("health did not become ", static_cast<int>(health),
                                                  " within ", absl::FormatDuration(timeout), "\n", Logs()));
}

std::string Cluster::Logs() const {
  std::string logs;
  if (coordinator_ != nullptr) absl::StrAppend(&logs, "--- coordinator\n", coordinator_->Log());
  for (size_t w = 0; w < workers_.size(); ++w) {
    if (workers_[w] != nullptr) absl::StrAppend(&logs, "--- worker ", w, "\n", workers_[w]->Log());
  }
  return logs;
}

}  // namespace lancet
