// lancet-coordinator: flags, signals and exit codes around the coordinator. The only place that exits.
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/checkpoint.h"
#include "common/checkpoint_flags.h"
#include "common/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "coordinator/access/access_control.h"
#include "coordinator/access_flags.h"
#include "coordinator/dispatch/dispatcher.h"
#include "coordinator/dispatch/steady_clock.h"
#include "coordinator/request/plan_builder.h"
#include "coordinator/request/tokenizer.h"
#include "coordinator/service/readiness.h"
#include "coordinator/service/server.h"
#include "coordinator/telemetry/metrics_server.h"
#include "coordinator/telemetry/service_metrics.h"

ABSL_FLAG(
    std::string, listen, "127.0.0.1:50051",
    "address for clients, host:port. Port 0 takes a free one (see --port_file). Others than this machine may "
    "reach it only with TLS and tokens or client certificates (docs/security.md)");
ABSL_FLAG(
    std::string, worker_listen, "127.0.0.1:50052",
    "address for workers, host:port. Others than this machine may reach it only with --worker_tls_ca or "
    "--worker_secret_file");
ABSL_FLAG(std::string, metrics_listen, "",
          "address for monitors, host:port: /metrics, /healthz and /readyz over plain HTTP; empty: none");
ABSL_FLAG(std::string, log_format, "text", "lines on stderr: text or json");
ABSL_FLAG(
    std::string, port_file, "",
    "write \"public_port worker_port\", and the port of --metrics_listen if there is one, to this file once "
    "all are open");
ABSL_FLAG(int, max_active, 16, "requests worked on at once on one group, 1 to 256; ranks may hold fewer");
ABSL_FLAG(int64_t, row_budget, int64_t{1} << 30,
          "packed rows of one iteration; ranks may take fewer. Lower: shorter iterations, less shared work");
ABSL_FLAG(int, max_queue, 64, "requests that may wait; more are refused with a retry delay");
ABSL_FLAG(int, max_calls, 256, "calls that may exist at all, waiting, running or being read");
ABSL_FLAG(int, max_streams_per_connection, 100, "HTTP/2 streams on one client connection");
ABSL_FLAG(absl::Duration, max_connection_age, absl::Hours(2),
          "a client's connection is asked to end at this age, and cut off when it is as old again");
ABSL_FLAG(int, max_transport_mib, 1024,
          "memory that clients' connections may hold before new ones are refused");
ABSL_FLAG(int, max_request_bytes, 17 << 20, "size of one request message, pictures included");
ABSL_FLAG(int, max_prompt_bytes, lancet::Limits().max_prompt_bytes, "size of a prompt in UTF-8");
ABSL_FLAG(int, max_prompt_tokens, lancet::Limits().max_prompt_tokens, "tokens of a prompt with its template");
ABSL_FLAG(int, max_steps, lancet::Limits().max_steps, "denoising steps of a request");
ABSL_FLAG(int, max_side, lancet::Limits().max_side, "longer side of a picture in pixels");
ABSL_FLAG(int64_t, max_pixels, lancet::Limits().max_pixels, "width * height of a picture");
ABSL_FLAG(int, max_new_tokens, lancet::Limits().max_new_tokens, "tokens of an answer");
ABSL_FLAG(int, max_image_bytes, 16 << 20, "size of a picture's file in a request");
ABSL_FLAG(int, max_image_side, lancet::DecodeLimits().max_side,
          "longer side of a picture in a request, in pixels, as its header claims");
ABSL_FLAG(int64_t, max_image_pixels, lancet::DecodeLimits().max_pixels,
          "width * height of a picture in a request; decoding takes up to 11 bytes each");
ABSL_FLAG(int, image_threads, 2, "threads that decode pictures of requests");
ABSL_FLAG(int, max_image_queue, 16, "requests with pictures that may wait to be decoded; more are refused");
ABSL_FLAG(absl::Duration, ageing, absl::Seconds(30),
          "waiting this long raises a request by one level of priority");
ABSL_FLAG(absl::Duration, iteration_timeout, absl::Minutes(10),
          "a group that takes longer for one piece of work, or to become ready, is taken for lost");
ABSL_FLAG(absl::Duration, hang_timeout, lancet::IterationPatience::Options().least,
          "an iteration that takes longer than this, and longer than 20 times what its kind has taken in the "
          "same epoch, "
          "means that its group hangs; --iteration_timeout is the most");
ABSL_FLAG(absl::Duration, client_stall_timeout, absl::Seconds(60),
          "a client that does not read for this long is cut off");
ABSL_FLAG(int, snapshot_steps, lancet::RecoveryOptions().snapshot_every,
          "steps between two snapshots of a picture, from which it goes on when its workers are lost; 0: it "
          "begins again");
ABSL_FLAG(absl::Duration, snapshot_age, lancet::RecoveryOptions().snapshot_age,
          "a snapshot as old as this is followed by another one with the next step");
ABSL_FLAG(absl::Duration, group_wait, lancet::RecoveryOptions().group_wait,
          "how long an accepted request waits for workers to come back before it fails with UNAVAILABLE");
ABSL_FLAG(int, max_losses, lancet::RecoveryOptions().max_losses,
          "a request whose workers died so often while it ran fails with INTERNAL");
ABSL_FLAG(bool, resume_anywhere, false,
          "lets a request that began on one kind of group (ranks, device, linear mode) go on on another: it "
          "draws other "
          "bytes than an undisturbed one");
ABSL_FLAG(absl::Duration, idempotency_lifetime, lancet::IdempotencyOptions().lifetime,
          "how long a result can be asked for again by its idempotency_key");
ABSL_FLAG(absl::Duration, orphan_wait, lancet::IdempotencyOptions().orphan_wait,
          "how long a request with an idempotency_key goes on when nobody listens any more");
ABSL_FLAG(int, max_kept_results, static_cast<int>(lancet::IdempotencyOptions().max_results),
          "results that are kept for their idempotency_key");
ABSL_FLAG(int, max_kept_result_mib, static_cast<int>(lancet::IdempotencyOptions().max_result_bytes >> 20),
          "size of all results that are kept, MiB");
ABSL_FLAG(
    absl::Duration, drain_timeout, absl::Seconds(30),
    "after SIGTERM or SIGINT: how long accepted requests may take to finish. A second signal exits at once");

namespace lancet {
namespace {

constexpr char kUsage[] =
    R"(serves a Lance checkpoint: takes prompts from clients, has workers draw them, streams pictures back.

It needs the checkpoint for its configuration, tokenizer and fingerprint; the weights are the workers'. Start it, then one
lancet-worker per rank:

  lancet-coordinator --model_dir=models/demo
  lancet-worker --model_dir=models/demo --rank=0 --world_size=2
  lancet-worker --model_dir=models/demo --rank=1 --world_size=2
  lancet generate "a rocket in the top left, on a light blue background"

Health (grpc.health.v1) turns SERVING once all ranks of a group are there. SIGTERM drains.

Exit codes: 0 after a drain, 1 when it cannot start, 2 for bad flags, 130 after a second signal.)";

constexpr int kCannotStart = 1;
constexpr int kBadFlags = 2;
constexpr int kSecondSignal = 130;

// Real random numbers: segment names must not be guessed. Thread-safe.
uint64_t RandomBits() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

absl::Status CheckFlag(absl::string_view name, int64_t value, int64_t lowest, int64_t highest) {
  if (value >= lowest && value <= highest) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, "=", value, " is not within ", lowest, " to ", highest));
}

absl::Status CheckDuration(absl::string_view name, absl::Duration value) {
  if (value >= absl::Milliseconds(1) && value <= absl::Hours(24)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, "=", absl::FormatDuration(value), " is not within 1ms to 24h"));
}

absl::Status CheckFlags() {
  LANCET_RETURN_IF_ERROR(CheckFlag("max_active", absl::GetFlag(FLAGS_max_active), 1, 256));
  LANCET_RETURN_IF_ERROR(CheckFlag("row_budget", absl::GetFlag(FLAGS_row_budget), 1, int64_t{1} << 40));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_queue", absl::GetFlag(FLAGS_max_queue), 1, 100000));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_calls", absl::GetFlag(FLAGS_max_calls), 1, 100000));
  LANCET_RETURN_IF_ERROR(
      CheckFlag("max_streams_per_connection", absl::GetFlag(FLAGS_max_streams_per_connection), 1, 100000));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_transport_mib", absl::GetFlag(FLAGS_max_transport_mib), 16, 1 << 20));
  LANCET_RETURN_IF_ERROR(CheckDuration("max_connection_age", absl::GetFlag(FLAGS_max_connection_age)));
  LANCET_RETURN_IF_ERROR(
      CheckFlag("max_request_bytes", absl::GetFlag(FLAGS_max_request_bytes), 1024, 1 << 28));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_prompt_bytes", absl::GetFlag(FLAGS_max_prompt_bytes), 1, 1 << 24));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_prompt_tokens", absl::GetFlag(FLAGS_max_prompt_tokens), 1, 1 << 16));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_steps", absl::GetFlag(FLAGS_max_steps), 1, 10000));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_side", absl::GetFlag(FLAGS_max_side), 16, 4096));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_pixels", absl::GetFlag(FLAGS_max_pixels), 256, int64_t{4096} * 4096));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_new_tokens", absl::GetFlag(FLAGS_max_new_tokens), 1, 1 << 16));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_image_bytes", absl::GetFlag(FLAGS_max_image_bytes), 1, 1 << 28));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_image_side", absl::GetFlag(FLAGS_max_image_side), 1, 1 << 16));
  LANCET_RETURN_IF_ERROR(
      CheckFlag("max_image_pixels", absl::GetFlag(FLAGS_max_image_pixels), 1, int64_t{1} << 28));
  LANCET_RETURN_IF_ERROR(CheckFlag("image_threads", absl::GetFlag(FLAGS_image_threads), 1, 64));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_image_queue", absl::GetFlag(FLAGS_max_image_queue), 1, 1000));
  LANCET_RETURN_IF_ERROR(CheckDuration("ageing", absl::GetFlag(FLAGS_ageing)));
  LANCET_RETURN_IF_ERROR(CheckDuration("iteration_timeout", absl::GetFlag(FLAGS_iteration_timeout)));
  LANCET_RETURN_IF_ERROR(CheckDuration("hang_timeout", absl::GetFlag(FLAGS_hang_timeout)));
  LANCET_RETURN_IF_ERROR(CheckDuration("client_stall_timeout", absl::GetFlag(FLAGS_client_stall_timeout)));
  LANCET_RETURN_IF_ERROR(CheckFlag("snapshot_steps", absl::GetFlag(FLAGS_snapshot_steps), 0, 10000));
  LANCET_RETURN_IF_ERROR(CheckDuration("snapshot_age", absl::GetFlag(FLAGS_snapshot_age)));
  LANCET_RETURN_IF_ERROR(CheckDuration("group_wait", absl::GetFlag(FLAGS_group_wait)));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_losses", absl::GetFlag(FLAGS_max_losses), 1, 1 << 20));
  LANCET_RETURN_IF_ERROR(CheckDuration("idempotency_lifetime", absl::GetFlag(FLAGS_idempotency_lifetime)));
  LANCET_RETURN_IF_ERROR(CheckDuration("orphan_wait", absl::GetFlag(FLAGS_orphan_wait)));
  LANCET_RETURN_IF_ERROR(CheckFlag("max_kept_results", absl::GetFlag(FLAGS_max_kept_results), 0, 1 << 20));
  LANCET_RETURN_IF_ERROR(
      CheckFlag("max_kept_result_mib", absl::GetFlag(FLAGS_max_kept_result_mib), 0, 1 << 20));
  LANCET_RETURN_IF_ERROR(ParseLogFormat(absl::GetFlag(FLAGS_log_format)).status());
  return CheckDuration("drain_timeout", absl::GetFlag(FLAGS_drain_timeout));
}

ModelInfo InfoFromFlags(const Checkpoint& checkpoint) {
  ModelInfo info;
  info.card = checkpoint.card();
  info.fingerprint = checkpoint.fingerprint();
  info.quantization = "nvfp4 w4a16";
  info.limits.max_prompt_bytes = absl::GetFlag(FLAGS_max_prompt_bytes);
  info.limits.max_prompt_tokens = absl::GetFlag(FLAGS_max_prompt_tokens);
  info.limits.max_steps = absl::GetFlag(FLAGS_max_steps);
  info.limits.max_side = absl::GetFlag(FLAGS_max_side);
  info.limits.max_pixels = absl::GetFlag(FLAGS_max_pixels);
  info.limits.max_new_tokens = absl::GetFlag(FLAGS_max_new_tokens);
  info.limits.image.max_bytes = static_cast<size_t>(absl::GetFlag(FLAGS_max_image_bytes));
  info.limits.image.max_side = absl::GetFlag(FLAGS_max_image_side);
  info.limits.image.max_pixels = absl::GetFlag(FLAGS_max_image_pixels);
  info.max_queue = absl::GetFlag(FLAGS_max_queue);
  info.has_vision = checkpoint.vision() != nullptr;
  info.server_version = "0.1.0";
  return info;
}

absl::StatusOr<std::unique_ptr<PlanBuilder>> MakePlanBuilder(const Checkpoint& checkpoint) {
  const CheckpointPaths& paths = checkpoint.paths();
  LANCET_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer,
                          Tokenizer::Load({paths.vocab, paths.merges, paths.tokenizer_config}));
  return PlanBuilder::Create({.config = checkpoint.config(),
                              .tokenizer = std::move(tokenizer),
                              .max_prompt_tokens = absl::GetFlag(FLAGS_max_prompt_tokens)});
}

// `plans` outlives the result.
Planners PlannersOf(const PlanBuilder& plans) {
  Planners planners;
  planners.generate = [&plans](uint64_t id, const GenerateParams& params) { return plans.Build(id, params); };
  planners.edit = [&plans](uint64_t id, const EditParams& params, RgbImage vision, RgbImage condition) {
    return plans.BuildEdit(id, params, std::move(vision), std::move(condition));
  };
  planners.describe = [&plans](uint64_t id, const DescribeParams& params, RgbImage vision) {
    return plans.BuildDescribe(id, params, std::move(vision));
  };
  return planners;
}

Dispatcher::Options DispatcherOptions(const Checkpoint& checkpoint, const Clock* clock, Readiness* readiness,
                                      ServiceObserver* observer) {
  Dispatcher::Options options;
  options.core.observer = observer;
  options.clock = clock;
  options.core.max_active = absl::GetFlag(FLAGS_max_active);
  options.core.row_budget = absl::GetFlag(FLAGS_row_budget);
  options.core.max_queue = absl::GetFlag(FLAGS_max_queue);
  options.core.max_calls = absl::GetFlag(FLAGS_max_calls);
  options.core.ageing = absl::GetFlag(FLAGS_ageing);
  options.core.client_stall_timeout = absl::GetFlag(FLAGS_client_stall_timeout);
  options.core.recovery.snapshot_every = absl::GetFlag(FLAGS_snapshot_steps);
  options.core.recovery.snapshot_age = absl::GetFlag(FLAGS_snapshot_age);
  options.core.recovery.group_wait = absl::GetFlag(FLAGS_group_wait);
  options.core.recovery.max_losses = absl::GetFlag(FLAGS_max_losses);
  options.core.recovery.resume_anywhere = absl::GetFlag(FLAGS_resume_anywhere);
  options.core.idempotency.lifetime = absl::GetFlag(FLAGS_idempotency_lifetime);
  options.core.idempotency.orphan_wait = absl::GetFlag(FLAGS_orphan_wait);
  options.core.idempotency.max_results = static_cast<size_t>(absl::GetFlag(FLAGS_max_kept_results));
  options.core.idempotency.max_result_bytes = static_cast<size_t>(absl::GetFlag(FLAGS_max_kept_result_mib))
                                              << 20;
  options.core.fingerprint = checkpoint.fingerprint();
  options.core.registry.group.session.iteration_timeout = absl::GetFlag(FLAGS_iteration_timeout);
  options.core.patience.least = absl::GetFlag(FLAGS_hang_timeout);
  options.core.patience.most = absl::GetFlag(FLAGS_iteration_timeout);
  options.core.registry.group.session.ready_timeout = absl::GetFlag(FLAGS_iteration_timeout);
  options.core.registry.random = RandomBits;
  options.core.registry.pid = static_cast<int32_t>(getpid());
  options.core.on_readiness = [readiness](bool serving, bool serving_vision) {
    readiness->Set(serving, serving_vision);
  };
  return options;
}

ServiceMetrics::Options MetricsOptions(const Checkpoint& checkpoint, const ModelInfo& info,
                                       const Clock* clock) {
  ServiceMetrics::Options options;
  options.clock = clock;
  options.version = info.server_version;
  options.model = info.card.name;
  options.fingerprint = info.fingerprint;
  options.quantization = info.quantization;
  // bf16 keys and values of every layer.
  const ModelConfig& config = checkpoint.config();
  options.cache_token_bytes = config.num_layers * config.num_kv_heads * config.head_dim * 2 * 2;
  return options;
}

// Null if no port for monitors is asked for. The arguments outlive it.
absl::StatusOr<std::unique_ptr<MetricsServer>> ServeMetrics(ServiceMetrics& metrics,
                                                            const Dispatcher& dispatcher,
                                                            const Readiness& readiness, const Clock& clock) {
  MetricsServer::Options options;
  options.listen = absl::GetFlag(FLAGS_metrics_listen);
  if (options.listen.empty()) return nullptr;
  options.metrics = [&metrics, &dispatcher, &readiness](MetricFormat format) {
    return metrics.Render({dispatcher.Status(), readiness.serving(), readiness.serving_vision()}, format);
  };
  options.health = [&dispatcher, &clock] {
    // It ticks ten times a second.
    if (clock.Now() - dispatcher.Status().time < absl::Seconds(5)) return absl::OkStatus();
    return absl::UnavailableError("the event loop stands still");
  };
  options.readiness = [&readiness] {
    if (readiness.serving()) return absl::OkStatus();
    return absl::UnavailableError(readiness.draining() ? "draining" : "no healthy group of workers");
  };
  return MetricsServer::Create(std::move(options));
}

// SIGTERM and SIGINT, taken from a descriptor so that nothing runs in a signal handler. Must be made before
// any thread, which inherits the blocked signals.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    sigprocmask(SIG_BLOCK, &set_, nullptr);
    fd_ = signalfd(-1, &set_, SFD_CLOEXEC);
  }
  ~Signals() { close(fd_); }
  // Blocks until the next signal; ended by the process only.
  int Wait() const {
    signalfd_siginfo info{};
    while (read(fd_, &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info))) {
    }
    return static_cast<int>(info.ssi_signo);
  }
  bool ok() const { return fd_ >= 0; }

 private:
  sigset_t set_;
  int fd_ = -1;
};

void Drain(Dispatcher& dispatcher, Readiness& readiness, CoordinatorServer& server) {
  struct Latch {
    std::mutex mu;
    std::condition_variable changed;
    bool open = false;
  };
  const absl::Duration timeout = absl::GetFlag(FLAGS_drain_timeout);
  LogInfo("draining", {{"timeout", absl::FormatDuration(timeout)}});
  readiness.SetDraining();
  // Shared: the dispatcher may still open it when we have given up waiting.
  auto latch = std::make_shared<Latch>();
  dispatcher.Drain([latch] {
    const std::lock_guard<std::mutex> lock(latch->mu);
    latch->open = true;
    latch->changed.notify_all();
  });
  bool idle = false;
  {
    std::unique_lock<std::mutex> lock(latch->mu);
    idle = latch->changed.wait_for(lock, absl::ToChronoMilliseconds(timeout), [&] { return latch->open; });
  }
  if (!idle) LogWarning("drain timeout: ending what is left");
  dispatcher.EndCalls();
  server.Shutdown(absl::Seconds(1));
  dispatcher.Shutdown();
  LogInfo("drained");
}

absl::Status Serve(const Signals& signals, const AccessSettings& settings) {
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<AccessControl> access,
                          AccessControl::Create(settings.token_file));
  LANCET_ASSIGN_OR_RETURN(const CheckpointPaths paths, ResolveCheckpoint(CheckpointPathsFromFlags()));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(paths));
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<PlanBuilder> plans, MakePlanBuilder(*checkpoint));

  const SteadyClock clock;
  Readiness readiness;
  TaskRunner admission_pool({.num_threads = 2, .capacity = 256, .tick = nullptr});
  TaskRunner image_pool({.num_threads = absl::GetFlag(FLAGS_image_threads),
                         .capacity = static_cast<size_t>(absl::GetFlag(FLAGS_max_image_queue)),
                         .tick = nullptr});
  const ModelInfo info = InfoFromFlags(*checkpoint);
  ServiceMetrics metrics(MetricsOptions(*checkpoint, info, &clock));
  Dispatcher dispatcher(DispatcherOptions(*checkpoint, &clock, &readiness, &metrics));

  // Looks at the file of tokens as often as gRPC does at certificates.
  TaskRunner reloader(
      {.num_threads = 1, .capacity = 1, .tick_interval = absl::Seconds(kTlsReloadSeconds), .tick = [&access] {
         access->Reload();
       }});

  CoordinatorServer::Options options;
  options.tls = settings.tls;
  options.worker_tls = settings.worker_tls;
  options.worker_secret = settings.worker_secret;
  options.on_rank_refused = [&metrics] { metrics.OnRankRefused(); };
  options.introspection = settings.introspection;
  options.max_connection_age = absl::GetFlag(FLAGS_max_connection_age);
  options.max_transport_bytes = int64_t{absl::GetFlag(FLAGS_max_transport_mib)} << 20;
  options.services.access = access.get();
  options.listen = absl::GetFlag(FLAGS_listen);
  options.worker_listen = absl::GetFlag(FLAGS_worker_listen);
  options.max_request_bytes = absl::GetFlag(FLAGS_max_request_bytes);
  options.max_streams_per_connection = absl::GetFlag(FLAGS_max_streams_per_connection);
  options.ranks = &dispatcher;
  options.readiness = &readiness;
  options.services.intake.info = info;
  options.services.intake.planners = PlannersOf(*plans);
  options.services.intake.tokenizer = &plans->tokenizer();
  options.services.intake.random = RandomBits;
  options.services.dispatcher = &dispatcher;
  options.services.admission_pool = &admission_pool;
  options.services.image_pool = &image_pool;
  options.services.readiness = &readiness;
  options.services.clock = &clock;
  options.services.observer = &metrics;
  options.services.recent_errors = &metrics.recent_errors();
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<CoordinatorServer> server,
                          CoordinatorServer::Create(std::move(options)));

  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<MetricsServer> metrics_server,
                          ServeMetrics(metrics, dispatcher, readiness, clock));
  std::vector<int> ports = {server->public_port(), server->worker_port()};
  if (metrics_server != nullptr) ports.push_back(metrics_server->port());
  if (const std::string path = absl::GetFlag(FLAGS_port_file); !path.empty()) {
    LANCET_RETURN_IF_ERROR(WritePortFile(path, ports));
  }
  LogInfo("listening", {{"public_port", server->public_port()},
                        {"worker_port", server->worker_port()},
                        {"metrics_port", metrics_server == nullptr ? 0 : metrics_server->port()},
                        {"model", checkpoint->card().name},
                        {"fingerprint", checkpoint->fingerprint()}});
  signals.Wait();
  std::thread([&signals] {
    signals.Wait();
    LogWarning("second signal: exiting at once");
    std::_Exit(kSecondSignal);
  }).detach();
  Drain(dispatcher, readiness, *server);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  absl::SetProgramUsageMessage(kUsage);
  absl::FlagsUsageConfig usage;
  // --help shows our flags and the checkpoint's, not those of libraries.
  usage.contains_helpshort_flags = [](absl::string_view file) {
    return absl::StrContains(file, "coordinator/main") || absl::StrContains(file, "access_flags") ||
           absl::StrContains(file, "checkpoint_flags");
  };
  usage.contains_help_flags = usage.contains_helpshort_flags;
  absl::SetFlagsUsageConfig(usage);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  absl::Status flags = CheckFlags();
  if (flags.ok() && rest.size() > 1) {
    flags = absl::InvalidArgumentError(absl::StrCat("unexpected argument '", rest[1], "'; see --help"));
  }
  if (!flags.ok()) {
    std::fprintf(stderr, "lancet-coordinator: %s\n", std::string(flags.message()).c_str());
    return kBadFlags;
  }
  SetLogFormat(*ParseLogFormat(absl::GetFlag(FLAGS_log_format)));
  // Never destroyed: the thread that waits for a second signal may outlive this function.
  static const Signals& signals = *new Signals();
  if (!signals.ok()) {
    std::fprintf(stderr, "lancet-coordinator: signalfd failed\n");
    return kCannotStart;
  }
  const absl::StatusOr<AccessSettings> settings = AccessFromFlags(
      absl::GetFlag(FLAGS_listen), absl::GetFlag(FLAGS_worker_listen), absl::GetFlag(FLAGS_metrics_listen));
  if (!settings.ok()) {
    std::fprintf(stderr, "lancet-coordinator: %s\n", std::string(settings.status().message()).c_str());
    return kBadFlags;
  }
  const absl::Status status = Serve(signals, *settings);
  if (status.ok()) return 0;
  std::fprintf(stderr, "lancet-coordinator: %s\n", std::string(status.message()).c_str());
  return kCannotStart;
}

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) { return lancet::Main(argc, argv); }
