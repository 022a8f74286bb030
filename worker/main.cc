// lancet-worker: one rank of a tensor-parallel group. `lancet-worker --help` explains.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/digest.h"
#include "common/logging.h"
#include "common/rank_proof.h"
#include "common/status_macros.h"
#include "worker/collective/local_collective.h"
#include "worker/collective/shm_collective.h"
#include "worker/collective/tcp_collective.h"
#include "worker/collective/tcp_listener.h"
#include "worker/cpu_list.h"
#include "worker/engine/cuda_runner.h"
#include "worker/engine/engine.h"
#include "worker/grpc_coordinator_stream.h"
#include "worker/session.h"

ABSL_FLAG(std::string, coordinator, "127.0.0.1:50052",
          "Worker port of the coordinator, host:port or unix:path");
ABSL_FLAG(std::string, group, "default", "Name of the group; the same on all its ranks");
ABSL_FLAG(int32_t, rank, 0, "This process's place in the group, 0 to world_size - 1");
ABSL_FLAG(int32_t, world_size, 1, "Ranks of the group: every Linear is split this many ways");
ABSL_FLAG(std::string, device, "auto", "cpu, cuda, or auto: a CUDA device if there is one, else the CPU");
ABSL_FLAG(int32_t, device_ordinal, -1, "Which CUDA device, 0 to 63; -1: rank modulo the devices there are");
ABSL_FLAG(
    std::string, device_transport, "auto",
    "How the CUDA devices of a group reach each other, the same on all its ranks: peer (kernels read the "
    "peers' memory), nccl, or auto: the first that works");
ABSL_FLAG(
    std::string, linear_mode, "w4a16",
    "How 4-bit weights are multiplied: w4a16 (expanded to bf16), w4a8_int8 (with activations of 8 bits, on "
    "the CPU), w4a8_fp8 (E4M3 on both sides) or w4a4 (NVFP4 on both sides; as w4a16 where a CUDA device "
    "has no FP4 units). w4a8 is the 8-bit kind of the device. The CPU emulates w4a8_fp8 and w4a4, slowly: "
    "their results without the device");
ABSL_FLAG(
    std::string, head, "bf16",
    "What the output head of answers is kept as on the CPU: bf16, or int8, which takes half the memory and "
    "the time to read it");
ABSL_FLAG(
    std::string, block_scales, "bf16",
    "What w4a8_int8 keeps block scales as: bf16, or e4m3 under a factor per product, which takes a tenth off "
    "the weights and the time to read them");
ABSL_FLAG(std::vector<std::string>, bf16_linears, {},
          "Linears that stay in w4a16 in the other modes: patterns with * and ? over whole names, such as "
          "'*.down_proj,*.layers.0.*'");
ABSL_FLAG(std::string, activation_factors, "",
          "File of calibrated factors of NVFP4 activations, for w4a4; empty: activation_factors.json beside "
          "the trunk, if it is there; none: no factors");
ABSL_FLAG(bool, cuda_graphs, true,
          "Replay captured work on a CUDA device instead of launching each kernel anew");
ABSL_FLAG(int32_t, threads, 0,
          "Compute threads; 0: the processors this process may use (--cpus or its affinity, and the quota of "
          "its control group), divided by world_size unless --cpus is given, at least 1");
ABSL_FLAG(int64_t, max_pixels, 1024 * 1024,
          "Largest picture in pixels; memory for it is taken at start. 256 to 16777216");
ABSL_FLAG(
    int64_t, cache_mib, 2048,
    "Memory for keys and values of all requests on this rank, MiB; taken as requests need it. 1 to 1048576");
ABSL_FLAG(int32_t, max_requests, 16, "Requests worked on at the same time, 1 to 256");
ABSL_FLAG(
    std::string, collective_listen, "",
    "HOST:PORT where ranks of other hosts reach this one, port 0 for any; the network between them must be "
    "trusted. Empty: all ranks of the group are on this host and share memory");
ABSL_FLAG(std::string, host_name, "",
          "Name of this host; ranks with equal names share memory. Empty: the system's");
ABSL_FLAG(absl::Duration, drain_grace, absl::Seconds(25),
          "After SIGTERM: how long this rank stays at most, while the coordinator lets what runs on its "
          "group end or "
          "takes it elsewhere. A second SIGTERM ends at once");
ABSL_FLAG(absl::Duration, stuck_timeout, lancet::SessionOptions().stuck_timeout,
          "After the end of an epoch: how long what was being computed for it may go on. Then the process "
          "ends with 1, so "
          "that whoever watches it starts it anew. 100ms to 1h");
ABSL_FLAG(bool, tls, false, "Dial the coordinator with TLS");
ABSL_FLAG(std::string, tls_ca, "", "Roots for the coordinator's certificate, PEM; empty: the system's");
ABSL_FLAG(std::string, tls_cert, "", "Certificate to show the coordinator, PEM; read again when it changes");
ABSL_FLAG(std::string, tls_key, "", "Its key, PEM, without a password");
ABSL_FLAG(std::string, tls_server_name, "",
          "Name that the coordinator's certificate must have; empty: the one in --coordinator");
ABSL_FLAG(std::string, secret_file, "",
          "The secret that the coordinator asks ranks to prove; the same file as its");
ABSL_FLAG(std::string, log_format, "text", "Lines on stderr: text or json");
ABSL_FLAG(
    std::string, cpus, "",
    "Processors to run on, such as 0-3,5, each for one compute thread; empty: any. With several ranks on a "
    "host give each its own");

namespace {

using lancet::LogError;
using lancet::LogInfo;

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;      // refused for good, stuck, or the engine cannot be built
constexpr int kExitUsage = 2;       // a flag is wrong
constexpr int kExitCheckpoint = 3;  // the model's files are missing or bad

// A rank comes late to an epoch while it finishes a decode of the epoch before.
constexpr absl::Duration kFormTimeout = absl::Seconds(30);

constexpr int64_t kMinPixels = 256;
constexpr int64_t kMaxPixels = 4096 * 4096;
constexpr int kMaxThreads = 1024;
constexpr int32_t kMaxDeviceOrdinal = 63;
constexpr int64_t kMaxCacheMib = 1 << 20;
constexpr int32_t kMaxRequests = 256;
constexpr absl::Duration kMaxDrainGrace = absl::Hours(1);

constexpr char kUsage[] =
    R"(lancet-worker: one rank of a tensor-parallel group; computes pictures for a coordinator.

One process per rank, all with the same --model_dir, --group and --world_size:
  lancet-worker --model_dir models/demo                                 a group of one
  lancet-worker --model_dir models/demo --world_size 2 --rank 0 --cpus 0
  lancet-worker --model_dir models/demo --world_size 2 --rank 1 --cpus 1
It dials the coordinator and keeps dialling when that is away; weights stay loaded. SIGTERM makes it leave: requests that
run on its group end there or go on elsewhere (--drain_grace).
Exit codes: 0 told to leave, 1 refused by the coordinator, stuck (--stuck_timeout) or not able to start, 2 wrong flags,
3 bad model files.)";

struct Settings {
  lancet::EngineOptions engine;
  std::string group;
  lancet::GrpcConnectorOptions coordinator;
  std::string host;
  std::unique_ptr<lancet::TcpListener> listener;  // null: this host alone
  absl::Duration drain_grace;
  absl::Duration stuck_timeout;
};

absl::Status ReadCoordinatorFlags(lancet::GrpcConnectorOptions& coordinator) {
  coordinator.address = absl::GetFlag(FLAGS_coordinator);
  if (coordinator.address.empty()) return absl::InvalidArgumentError("--coordinator is empty");
  coordinator.tls = absl::GetFlag(FLAGS_tls);
  coordinator.tls_files = {absl::GetFlag(FLAGS_tls_cert), absl::GetFlag(FLAGS_tls_key),
                           absl::GetFlag(FLAGS_tls_ca)};
  coordinator.server_name = absl::GetFlag(FLAGS_tls_server_name);
  const lancet::TlsFiles& files = coordinator.tls_files;
  if (!coordinator.tls &&
      !(files.cert.empty() && files.key.empty() && files.ca.empty() && coordinator.server_name.empty())) {
    return absl::InvalidArgumentError("--tls_ca, --tls_cert, --tls_key and --tls_server_name need --tls");
  }
  if (const absl::Status checked = lancet::CheckTlsFiles(files); !checked.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--tls_ca, --tls_cert, --tls_key: ", checked.message()));
  }
  if (const std::string path = absl::GetFlag(FLAGS_secret_file); !path.empty()) {
    absl::StatusOr<std::string> secret =
        lancet::ReadSecretFile(path, lancet::kMinSecretBytes, lancet::kMaxSecretBytes);
    if (!secret.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--secret_file: ", secret.status().message()));
    }
    coordinator.secret = *std::move(secret);
  }
  return absl::OkStatus();
}

absl::Status ReadDeviceFlags(lancet::EngineOptions& engine) {
  const std::string device = absl::GetFlag(FLAGS_device);
  if (device == "cpu") {
    engine.device = lancet::DeviceKind::kCpu;
  } else if (device == "cuda") {
    engine.device = lancet::DeviceKind::kCuda;
  } else if (device == "auto") {
    engine.device = lancet::DeviceKind::kAuto;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("--device is ", device, "; expected auto, cpu or cuda"));
  }
  engine.device_ordinal = absl::GetFlag(FLAGS_device_ordinal);
  if (engine.device_ordinal < -1 || engine.device_ordinal > kMaxDeviceOrdinal) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device_ordinal is ", engine.device_ordinal, "; expected -1 to ", kMaxDeviceOrdinal));
  }
  const std::string transport = absl::GetFlag(FLAGS_device_transport);
  if (transport == "auto") {
    engine.device_transport = lancet::DeviceTransport::kAuto;
  } else if (transport == "peer") {
    engine.device_transport = lancet::DeviceTransport::kPeerMemory;
  } else if (transport == "nccl") {
    engine.device_transport = lancet::DeviceTransport::kNccl;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("--device_transport is ", transport, "; expected auto, peer or nccl"));
  }
  const bool on_cuda = engine.device == lancet::DeviceKind::kCuda ||
                       (engine.device == lancet::DeviceKind::kAuto && lancet::HasCudaDevice());
  LANCET_ASSIGN_OR_RETURN(engine.linears.mode,
                          lancet::ParseLinearMode(absl::GetFlag(FLAGS_linear_mode), on_cuda));
  LANCET_ASSIGN_OR_RETURN(engine.linears.e4m3_scales,
                          lancet::ParseBlockScales(absl::GetFlag(FLAGS_block_scales)));
  LANCET_ASSIGN_OR_RETURN(engine.linears.head, lancet::ParseHeadForm(absl::GetFlag(FLAGS_head)));
  engine.linears.bf16_linears = absl::GetFlag(FLAGS_bf16_linears);
  engine.linears.activation_factors = absl::GetFlag(FLAGS_activation_factors);
  engine.cuda_graphs = absl::GetFlag(FLAGS_cuda_graphs);
  return absl::OkStatus();
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

absl::StatusOr<Settings> ReadFlags() {
  Settings settings;
  LANCET_ASSIGN_OR_RETURN(const lancet::LogFormat format,
                          lancet::ParseLogFormat(absl::GetFlag(FLAGS_log_format)));
  lancet::SetLogFormat(format);
  LANCET_RETURN_IF_ERROR(ReadDeviceFlags(settings.engine));
  settings.group = absl::GetFlag(FLAGS_group);
  LANCET_RETURN_IF_ERROR(ReadCoordinatorFlags(settings.coordinator));
  settings.engine.rank = absl::GetFlag(FLAGS_rank);
  settings.engine.world_size = absl::GetFlag(FLAGS_world_size);
  settings.engine.threads = absl::GetFlag(FLAGS_threads);
  const int64_t max_pixels = absl::GetFlag(FLAGS_max_pixels);
  settings.host = absl::GetFlag(FLAGS_host_name);
  if (settings.host.empty()) settings.host = HostName();
  if (const std::string listen = absl::GetFlag(FLAGS_collective_listen); !listen.empty()) {
    absl::StatusOr<std::unique_ptr<lancet::TcpListener>> listener = lancet::TcpListener::Create(listen);
    if (!listener.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--collective_listen: ", listener.status().message()));
    }
    settings.listener = *std::move(listener);
  }
  if (settings.group.empty()) return absl::InvalidArgumentError("--group is empty");
  if (settings.engine.world_size < 1 || settings.engine.world_size > lancet::kShmMaxRanks) {
    return absl::InvalidArgumentError(absl::StrCat("--world_size is ", settings.engine.world_size,
                                                   "; expected 1 to ", lancet::kShmMaxRanks));
  }
  if (settings.engine.rank < 0 || settings.engine.rank >= settings.engine.world_size) {
    return absl::InvalidArgumentError(absl::StrCat("--rank is ", settings.engine.rank, "; expected 0 to ",
                                                   settings.engine.world_size - 1, " (--world_size - 1)"));
  }
  if (settings.engine.threads < 0 || settings.engine.threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("--threads is ", settings.engine.threads, "; expected 0 to ", kMaxThreads));
  }
  if (max_pixels < kMinPixels || max_pixels > kMaxPixels) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max_pixels is ", max_pixels, "; expected ", kMinPixels, " to ", kMaxPixels));
  }
  settings.stuck_timeout = absl::GetFlag(FLAGS_stuck_timeout);
  if (settings.stuck_timeout < absl::Milliseconds(100) || settings.stuck_timeout > absl::Hours(1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--stuck_timeout is ", absl::FormatDuration(settings.stuck_timeout), "; expected 100ms to 1h"));
  }
  settings.drain_grace = absl::GetFlag(FLAGS_drain_grace);
  if (settings.drain_grace < absl::ZeroDuration() || settings.drain_grace > kMaxDrainGrace) {
    return absl::InvalidArgumentError(absl::StrCat("--drain_grace is ",
                                                   absl::FormatDuration(settings.drain_grace),
                                                   "; expected 0 to ", absl::FormatDuration(kMaxDrainGrace)));
  }
  const int64_t cache_mib = absl::GetFlag(FLAGS_cache_mib);
  if (cache_mib < 1 || cache_mib > kMaxCacheMib) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cache_mib is ", cache_mib, "; expected 1 to ", kMaxCacheMib));
  }
  settings.engine.cache_bytes = cache_mib << 20;
  settings.engine.max_requests = absl::GetFlag(FLAGS_max_requests);
  if (settings.engine.max_requests < 1 || settings.engine.max_requests > kMaxRequests) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max_requests is ", settings.engine.max_requests, "; expected 1 to ", kMaxRequests));
  }
  settings.engine.max_latents = max_pixels / (lancet::kPixelsPerLatent * lancet::kPixelsPerLatent);
  if (const std::string cpus = absl::GetFlag(FLAGS_cpus); !cpus.empty()) {
    // Before any thread is there, so that all of them inherit it.
    LANCET_ASSIGN_OR_RETURN(const std::vector<int> list, lancet::ParseCpuList(cpus));
    LANCET_RETURN_IF_ERROR(lancet::PinToCpus(list));
    if (settings.engine.threads == 0) settings.engine.threads = lancet::UsableCpus();
    // Each compute thread keeps to a processor if there are enough; more threads than that share them.
    if (static_cast<int>(list.size()) >= settings.engine.threads) settings.engine.cpus = list;
  }
  if (settings.engine.threads == 0) {
    settings.engine.threads = std::max(1, lancet::UsableCpus() / settings.engine.world_size);
  }
  return settings;
}

// "cpu avx512_bf16 w4a16": what ranks say that compute alike, to the bit. Threads change nothing.
std::string Numerics(const std::string& device, const lancet::LinearPolicy& linears) {
  return absl::StrCat(device.substr(0, device.find(',')), " ", linears.Numerics());
}

absl::StatusOr<std::unique_ptr<lancet::Collective>> JoinGroup(const lancet::EngineOptions& options,
                                                              size_t capacity_floats,
                                                              lancet::TcpListener* listener,
                                                              const lancet::FormMessage& form,
                                                              const std::function<bool()>& cancelled) {
  if (options.world_size == 1) return lancet::SingleRankCollective::Create(capacity_floats);
  if (!form.collective_addresses.empty()) {
    return lancet::TcpCollective::Create({.addresses = form.collective_addresses,
                                          .key = form.segment,
                                          .epoch = form.epoch,
                                          .rank = options.rank,
                                          .capacity_floats = capacity_floats,
                                          .listener = listener,
                                          .deadline = absl::Now() + kFormTimeout,
                                          .cancelled = cancelled});
  }
  return lancet::ShmCollective::Create({.segment_name = form.segment,
                                        .rank = options.rank,
                                        .world_size = options.world_size,
                                        .capacity_floats = capacity_floats,
                                        .create_deadline = absl::Now() + kFormTimeout,
                                        .cancelled = cancelled});
}

// Lets the session leave at the first SIGTERM or SIGINT and stops it at the second. Before there is one,
// nothing is lost by ending at once.
class SignalThread {
 public:
  SignalThread(const sigset_t& signals, absl::Duration grace) {
    std::thread([this, signals, grace] {
      int number = 0;
      while (sigwait(&signals, &number) == 0) {
        const std::lock_guard<std::mutex> lock(mu_);
        if (session_ == nullptr) _exit(kExitOk);
        LogInfo("leaving", {{"signal", number}});
        session_->Leave(grace);
      }
    }).detach();
  }
  void SetSession(lancet::Session* session) {
    const std::lock_guard<std::mutex> lock(mu_);
    session_ = session;
  }

 private:
  std::mutex mu_;
  lancet::Session* session_ = nullptr;  // guarded by mu_
};

// What the engine's thread found out while loading.
struct Loaded {
  lancet::Engine* engine = nullptr;
  size_t collective_capacity = 0;
  std::string device;
  lancet::ModelLimits limits;
};

int Run(const Settings& settings, SignalThread& signals) {
  const absl::StatusOr<lancet::CheckpointPaths> paths =
      lancet::ResolveCheckpoint(lancet::CheckpointPathsFromFlags());
  if (!paths.ok()) {
    LogError("model not found", {{"reason", paths.status().message()}});
    return kExitCheckpoint;
  }
  absl::StatusOr<std::unique_ptr<lancet::Checkpoint>> checkpoint = lancet::Checkpoint::Open(*paths);
  if (!checkpoint.ok()) {
    LogError("bad model", {{"reason", checkpoint.status().message()}});
    return kExitCheckpoint;
  }
  const std::string fingerprint = (*checkpoint)->fingerprint();
  const absl::StatusOr<lancet::LinearPolicy> linears =
      lancet::LinearPolicy::Create(**checkpoint, settings.engine.linears);
  if (!linears.ok()) {
    LogError("cannot build the engine", {{"reason", linears.status().message()}});
    return kExitFailed;
  }

  // The engine lives on one thread, which lowers its own priority; this one and gRPC's keep theirs.
  std::promise<absl::StatusOr<Loaded>> loaded_promise;
  std::promise<lancet::Session*> session_promise;
  std::thread engine_thread([&] {
    const absl::Time begin = absl::Now();
    absl::StatusOr<std::unique_ptr<lancet::Engine>> engine =
        lancet::Engine::Load(**checkpoint, settings.engine);
    if (!engine.ok()) {
      loaded_promise.set_value(engine.status());
      return;
    }
    checkpoint->reset();
    LogInfo("weights loaded", {{"device", (*engine)->device()},
                               {"rank", settings.engine.rank},
                               {"world_size", settings.engine.world_size},
                               {"seconds", absl::ToDoubleSeconds(absl::Now() - begin)}});
    loaded_promise.set_value(
        Loaded{engine->get(), (*engine)->collective_capacity(), (*engine)->device(), (*engine)->limits()});
    if (lancet::Session* session = session_promise.get_future().get()) session->RunExecutor(engine->get());
  });
  const absl::StatusOr<Loaded> loaded = loaded_promise.get_future().get();
  if (!loaded.ok()) {
    engine_thread.join();
    LogError("cannot build the engine", {{"reason", loaded.status().message()}});
    return kExitFailed;
  }

  lancet::SessionOptions options;
  options.registration.group = settings.group;
  options.registration.rank = settings.engine.rank;
  options.registration.world_size = settings.engine.world_size;
  options.registration.fingerprint = fingerprint;
  options.registration.device = loaded->device;
  options.registration.numerics = Numerics(loaded->device, *linears);
  options.registration.host = settings.host;
  if (settings.listener != nullptr) options.registration.collective_address = settings.listener->address();
  options.registration.max_latents = settings.engine.max_latents;
  options.registration.pid = getpid();
  options.registration.max_rows = loaded->limits.max_rows;
  options.registration.cache_tokens = loaded->limits.cache_tokens;
  options.registration.has_vision = loaded->limits.max_patches > 0;
  options.registration.max_patches = loaded->limits.max_patches;
  options.registration.max_requests = settings.engine.max_requests;
  options.stuck_timeout = settings.stuck_timeout;
  options.jitter_seed =
      static_cast<uint64_t>(absl::ToUnixNanos(absl::Now())) ^ static_cast<uint64_t>(getpid());
  const absl::StatusOr<std::unique_ptr<lancet::CoordinatorConnector>> connector =
      lancet::MakeGrpcConnector(settings.coordinator);
  const auto give_up = [&](const absl::Status& reason) {
    session_promise.set_value(nullptr);
    engine_thread.join();
    LogError("cannot start", {{"reason", reason.message()}});
    return kExitFailed;
  };
  if (!connector.ok()) return give_up(connector.status());
  absl::StatusOr<std::unique_ptr<lancet::Session>> session =
      lancet::Session::Create(options, connector->get(),
                              [&](const lancet::FormMessage& form, const std::function<bool()>& cancelled) {
                                return JoinGroup(settings.engine, loaded->collective_capacity,
                                                 settings.listener.get(), form, cancelled);
                              });
  if (!session.ok()) return give_up(session.status());
  signals.SetSession(session->get());
  session_promise.set_value(session->get());
  LogInfo("dialling the coordinator", {{"address", settings.coordinator.address}, {"group", settings.group}});
  const absl::Status ended = (*session)->RunLink();
  if (absl::IsDeadlineExceeded(ended)) {
    LogError("giving up", {{"reason", ended.message()}});
    // The compute thread is stuck: nothing that waits for it, or that it may still touch, can be taken down.
    _exit(kExitFailed);
  }
  engine_thread.join();
  signals.SetSession(nullptr);
  if (!ended.ok()) {
    LogError("giving up", {{"reason", ended.message()}});
    return kExitFailed;
  }
  LogInfo("left the group");
  return kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(kUsage);
  absl::FlagsUsageConfig usage;
  // --help shows our flags and the checkpoint's, not those of libraries.
  const auto ours = [](absl::string_view file) {
    return absl::StrContains(file, "worker/main") || absl::StrContains(file, "checkpoint_flags");
  };
  usage.contains_helpshort_flags = ours;
  usage.contains_help_flags = ours;
  absl::SetFlagsUsageConfig(usage);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    LogError("unexpected argument; all settings are flags, see --help", {{"argument", rest[1]}});
    return kExitUsage;
  }
  const absl::StatusOr<Settings> settings = ReadFlags();
  if (!settings.ok()) {
    LogError("bad flag", {{"reason", settings.status().message()}});
    return kExitUsage;
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  // Here, so that every thread inherits it and only the one that waits for them takes them.
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // Never freed: its thread waits until the process ends.
  auto* signal_thread = new SignalThread(signals, settings->drain_grace);
  const int code = Run(*settings, *signal_thread);
  _exit(code);
}
