#include "tests/coordinator/service/service_fixture.h"

#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <future>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/request/image_codec.h"

namespace lancet {
namespace {

constexpr char kFingerprint[] = "f00dfeed";

Positions Counting(int64_t n) {
  Positions positions;
  for (int64_t i = 0; i < n; ++i) positions.t.push_back(static_cast<int32_t>(i));
  positions.h = positions.t;
  positions.w = positions.t;
  return positions;
}

PrefixBlock Visual(PrefixKind kind, int64_t tokens) {
  PrefixBlock block;
  block.kind = kind;
  block.token_ids = {1, 2};
  block.positions = Counting(tokens + 2);
  return block;
}

// One block of a token per byte of the prompt; everything a rank checks is in order.
absl::StatusOr<RequestPlan> PlanFor(uint64_t id, const GenerateParams& params) {
  RequestPlan plan;
  plan.request_id = id;
  PrefixBlock block;
  block.token_ids.assign(params.prompt.size() + 1, 1);
  block.positions = Counting(static_cast<int64_t>(block.token_ids.size()));
  plan.prefix.push_back(std::move(block));
  plan.target.latent_height = params.height / 16;
  plan.target.latent_width = params.width / 16;
  plan.target.conditional = Counting(plan.target.num_latents() + 2);
  plan.target.unconditional = plan.target.conditional;
  plan.sampler = params.sampler;
  plan.seed = params.seed;
  return plan;
}

absl::StatusOr<RequestPlan> PlanForEdit(uint64_t id, const EditParams& params, RgbImage vision,
                                        RgbImage condition) {
  GenerateParams drawing;
  drawing.prompt = params.instruction;
  drawing.sampler = params.sampler;
  drawing.seed = params.seed;
  drawing.width = condition.width;
  drawing.height = condition.height;
  absl::StatusOr<RequestPlan> plan = PlanFor(id, drawing);
  if (!plan.ok()) return plan;
  plan->prefix.push_back(Visual(PrefixKind::kVision, (vision.width / 28) * (vision.height / 28)));
  plan->prefix.push_back(Visual(PrefixKind::kLatents, plan->target.num_latents()));
  plan->sample_condition = params.sample_condition;
  plan->vision_image = std::move(vision);
  plan->condition_image = std::move(condition);
  return plan;
}

// Ranks answer with the question's bytes, see FakeRank.
absl::StatusOr<RequestPlan> PlanForDescribe(uint64_t id, const DescribeParams& params, RgbImage vision) {
  RequestPlan plan;
  plan.request_id = id;
  plan.seed = params.seed;
  plan.prefix.push_back(Visual(PrefixKind::kVision, (vision.width / 28) * (vision.height / 28)));
  PrefixBlock block;
  for (const char c : params.question) block.token_ids.push_back(static_cast<uint8_t>(c));
  block.token_ids.push_back(kByteTokenizerEnd);
  block.positions = Counting(static_cast<int64_t>(block.token_ids.size()));
  plan.prefix.push_back(std::move(block));
  for (PrefixBlock& b : plan.prefix) b.unconditional = false;
  plan.vision_image = std::move(vision);
  AnswerParams& answer = plan.answer.emplace();
  answer.max_new_tokens = params.max_new_tokens;
  answer.temperature = params.temperature;
  answer.first_token_id = 10;
  answer.first_position = 1000;
  answer.stop_token_id = kByteTokenizerEnd;
  answer.num_valid_tokens = kByteTokenizerEnd + 1;
  return plan;
}

// Noise, so that no codec makes it small.
void FillPicture(uint64_t seed, int width, int height, v1::RgbImage& image) {
  std::minstd_rand random(static_cast<uint32_t>(seed));
  std::string pixels(3 * static_cast<size_t>(width) * height, '\0');
  for (char& c : pixels) c = static_cast<char>(random() >> 8);
  image.set_width(width);
  image.set_height(height);
  image.set_pixels(std::move(pixels));
}

}  // namespace

void Gate::Allow(int iterations) {
  const std::lock_guard<std::mutex> lock(mu_);
  allowed_ = iterations;
  changed_.notify_all();
}

bool Gate::Pass() {
  std::unique_lock<std::mutex> lock(mu_);
  if (!changed_.wait_for(lock, kPatience, [this] { return closed_ || allowed_ > 0; }) || closed_)
    return false;
  --allowed_;
  return true;
}

void Gate::Close() {
  const std::lock_guard<std::mutex> lock(mu_);
  closed_ = true;
  changed_.notify_all();
}

FakeRank::FakeRank(const std::string& address, int rank, const std::string& fingerprint, Gate* gate,
                   bool has_vision)
    : rank_(rank), fingerprint_(fingerprint), gate_(gate), has_vision_(has_vision), thread_([this, address] {
        Run(address);
      }) {}

FakeRank::~FakeRank() {
  Kill();
  if (thread_.joinable()) thread_.join();
}

void FakeRank::Kill() { context_.TryCancel(); }

std::string FakeRank::Join() {
  if (thread_.joinable()) thread_.join();
  return refusal_;
}

void FakeRank::Run(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // A connection of its own, like a process.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::WorkerService::NewStub(channel);
  context_.set_wait_for_ready(true);
  const auto stream = stub->Connect(&context_);
  v1::ConnectRequest out;
  v1::Register& info = *out.mutable_register_();
  info.set_group("main");
  info.set_rank(rank_);
  info.set_world_size(2);
  info.set_fingerprint(fingerprint_);
  info.set_device("fake");
  info.set_host("here");
  info.set_max_latents(4096);
  info.set_max_rows(20000);
  info.set_cache_tokens(100000);
  info.set_max_requests(8);
  info.set_has_vision(has_vision_);
  info.set_max_patches(has_vision_ ? 4096 : 0);
  stream->Write(out);
  v1::ConnectResponse in;
  while (stream->Read(&in)) {
    out.Clear();
    if (in.has_form()) {
      admitted_.clear();
      out.mutable_ready()->set_epoch(in.form().epoch());
    } else if (in.has_ping()) {
      out.mutable_pong()->set_id(in.ping().id());
    } else if (in.has_command()) {
      *out.mutable_done() = Execute(in.command());
      num_admitted_ = admitted_.size();
    } else {
      if (in.has_refuse()) refusal_ = in.refuse().reason();
      continue;
    }
    if (!stream->Write(out)) break;
  }
  stream->Finish();
}

v1::Done FakeRank::Execute(const v1::Command& command) {
  v1::Done done;
  done.set_epoch(command.epoch());
  done.set_number(command.number());
  if (command.has_admit()) {
    admitted_[command.admit().plan().request_id()] = command.admit().plan();
  } else if (command.has_release()) {
    admitted_.erase(command.release().request_id());
  } else if (rank_ == 0 && gate_->Pass()) {
    for (const v1::Work& work : command.iterate().work()) {
      const v1::RequestPlan& plan = admitted_[work.request_id()];
      const int height = plan.target().latent_height();
      const int width = plan.target().latent_width();
      v1::WorkResult& result = *done.add_results();
      result.set_request_id(work.request_id());
      result.set_kind(work.kind());
      result.set_index(work.index());
      if (work.preview() == v1::WORK_PREVIEW_LATENT_RGB) {
        FillPicture(plan.seed(), width, height, *result.mutable_preview());
      } else if (work.preview() == v1::WORK_PREVIEW_VAE) {
        FillPicture(plan.seed(), 16 * width, 16 * height, *result.mutable_preview());
      }
      if (work.kind() == v1::WORK_KIND_ANSWER) {
        const auto& said = plan.prefix(plan.prefix_size() - 1).token_ids();
        const int last = std::min(static_cast<int>(said.size()), plan.answer().max_new_tokens()) - 1;
        if (work.index() <= last) {
          result.mutable_token()->set_id(said[work.index()]);
          result.mutable_token()->set_last(work.index() == last);
        }
      }
      if (work.kind() == v1::WORK_KIND_DECODE) {
        FillPicture(plan.seed(), 16 * width, 16 * height, *result.mutable_image());
      }
      result.set_seconds(0.001);
    }
  }
  return done;
}

ServiceFixture::ServiceFixture() = default;

ServiceFixture::~ServiceFixture() {
  gate_.Close();
  stub_.reset();
  text_stub_.reset();
  channel_.reset();
  if (dispatcher_ != nullptr) dispatcher_->EndCalls();
  server_.reset();
  ranks_.clear();
  dispatcher_.reset();
  admission_pool_.reset();
  image_pool_.reset();
}

void ServiceFixture::StartServer() {
  admission_pool_ = std::make_unique<TaskRunner>(TaskRunner::Options{
      .num_threads = 2, .capacity = 256, .tick_interval = absl::InfiniteDuration(), .tick = nullptr});
  image_pool_ = std::make_unique<TaskRunner>(TaskRunner::Options{
      .num_threads = 1, .capacity = 4, .tick_interval = absl::InfiniteDuration(), .tick = nullptr});
  Dispatcher::Options dispatch;
  dispatch.clock = &clock_;
  dispatch.tick_interval = absl::Milliseconds(20);
  dispatch.core.fingerprint = kFingerprint;
  dispatch.core.registry.random = [] { return uint64_t{0x1234}; };
  dispatch.core.registry.group.first_backoff = absl::Milliseconds(20);
  // Ranks die here by breaking their streams; a slow machine alone must not look like a dead one.
  dispatch.core.registry.group.heartbeat.timeout = absl::Seconds(20);
  dispatch.core.on_readiness = [this](bool serving, bool serving_vision) {
    readiness_.Set(serving, serving_vision);
    const std::lock_guard<std::mutex> lock(ready_mu_);
    ready_ = serving;
    ready_changed_.notify_all();
  };
  dispatch.core.observer = observer;
  if (adjust != nullptr) adjust(dispatch);
  dispatcher_ = std::make_unique<Dispatcher>(std::move(dispatch));

  CoordinatorServer::Options options;
  options.listen = "127.0.0.1:0";
  options.worker_listen = "127.0.0.1:0";
  options.ranks = dispatcher_.get();
  options.readiness = &readiness_;
  ServiceOptions& services = options.services;
  IntakeOptions& service = services.intake;
  service.info.card.name = "fake";
  service.info.card.default_size = {32, 32};
  service.info.fingerprint = kFingerprint;
  service.info.quantization = "nvfp4 w4a16";
  service.info.max_queue = 64;
  service.info.server_version = "test";
  service.info.has_vision = has_vision;
  service.info.limits.image = {.max_side = 2000, .max_pixels = 1000000, .max_bytes = 200000};
  service.planners = {PlanFor, PlanForEdit, PlanForDescribe};
  service.tokenizer = tokenizer_.get();
  services.dispatcher = dispatcher_.get();
  services.admission_pool = admission_pool_.get();
  services.image_pool = image_pool_.get();
  services.readiness = &readiness_;
  services.clock = &clock_;
  services.observer = observer;
  auto access = AccessControl::Create(token_file);
  ASSERT_TRUE(access.ok()) << access.status();
  access_ = *std::move(access);
  services.access = access_.get();
  service.random = [next = std::make_shared<std::atomic<uint64_t>>(1)] { return (*next)++; };
  if (adjust_server != nullptr) adjust_server(options);
  auto server = CoordinatorServer::Create(std::move(options));
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  channel_ = NewChannel();
  stub_ = v1::ImageService::NewStub(channel_);
  text_stub_ = v1::TextService::NewStub(channel_);
}

void ServiceFixture::StartRank(int rank) {
  ranks_[rank] = std::make_unique<FakeRank>(worker_address(), rank, kFingerprint, &gate_, has_vision);
}

void ServiceFixture::StartRanks() {
  for (int rank : {0, 1}) StartRank(rank);
  ASSERT_TRUE(WaitReady(true));
}

bool ServiceFixture::WaitReady(bool ready) {
  std::unique_lock<std::mutex> lock(ready_mu_);
  return ready_changed_.wait_for(lock, kPatience, [&] { return ready_ == ready; });
}

bool ServiceFixture::WaitUntil(const std::function<bool()>& done) {
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

std::string ServiceFixture::public_address() const {
  return absl::StrCat("127.0.0.1:", server_->public_port());
}
std::string ServiceFixture::worker_address() const {
  return absl::StrCat("127.0.0.1:", server_->worker_port());
}

std::shared_ptr<grpc::Channel> ServiceFixture::NewChannel(grpc::ChannelArguments arguments) const {
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(public_address(), grpc::InsecureChannelCredentials(), arguments);
}

v1::GenerateImageRequest ServiceFixture::GoodRequest() {
  v1::GenerateImageRequest request;
  request.set_prompt("a rocket");
  request.set_seed(7);
  request.set_num_inference_steps(4);
  return request;
}

const std::string& ServiceFixture::GoodPicture() {
  static const std::string file =
      EncodeImage(RgbImage{40, 30, std::vector<uint8_t>(3 * 40 * 30, 100)}, ImageFormat::kPng).value();
  return file;
}

v1::EditImageRequest ServiceFixture::GoodEdit() {
  v1::EditImageRequest request;
  request.add_images(GoodPicture());
  request.set_instruction("make it blue");
  request.set_seed(7);
  request.set_num_inference_steps(2);
  request.set_width(64);
  request.set_height(64);
  return request;
}

v1::DescribeImageRequest ServiceFixture::GoodQuestion() {
  v1::DescribeImageRequest request;
  request.add_images(GoodPicture());
  request.set_question("what?");
  request.set_resolution(v1::RESOLUTION_IMAGE_256RES);
  return request;
}

namespace {

template <typename Outcome, typename Reader>
Outcome ReadAll(Reader& reader) {
  Outcome outcome;
  typename decltype(outcome.events)::value_type event;
  while (reader.Read(&event)) outcome.events.push_back(event);
  outcome.status = reader.Finish();
  return outcome;
}

}  // namespace

ServiceFixture::EditOutcome ServiceFixture::Edit(const v1::EditImageRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto reader = stub_->EditImage(&context, request);
  return ReadAll<EditOutcome>(*reader);
}

ServiceFixture::TextOutcome ServiceFixture::Describe(const v1::DescribeImageRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto reader = text_stub_->DescribeImage(&context, request);
  return ReadAll<TextOutcome>(*reader);
}

ServiceFixture::Outcome ServiceFixture::Generate(const v1::GenerateImageRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto reader = stub_->GenerateImage(&context, request);
  Outcome outcome;
  v1::GenerateImageResponse event;
  while (reader->Read(&event)) outcome.events.push_back(event);
  outcome.status = reader->Finish();
  return outcome;
}

grpc::Status ServiceFixture::GenerateUntilOk() {
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  grpc::Status status;
  do {
    status = Generate(GoodRequest()).status;
  } while (!status.ok() && std::chrono::steady_clock::now() < give_up);
  return status;
}

grpc::Status ServiceFixture::CallRaw(const std::string& method, const std::string& request,
                                     std::string& response) {
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const grpc::Slice slice(request);
  const grpc::ByteBuffer out(&slice, 1);
  grpc::ByteBuffer in;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, method, {}, &out, &in,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();  // bounded by the call's deadline
  std::vector<grpc::Slice> slices;
  response.clear();
  if (in.Valid() && in.Dump(&slices).ok()) {
    for (const grpc::Slice& s : slices) response.append(reinterpret_cast<const char*>(s.begin()), s.size());
  }
  return status;
}

}  // namespace lancet
