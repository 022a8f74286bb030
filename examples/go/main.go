// Draws, edits and describes pictures with a Lancet server. See README.md beside this file.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"lancet.example/lancetv1"
)

// The published retry policy: UNAVAILABLE is tried again while nothing of the answer has come.
//
//go:embed lancetv1/service_config.json
var serviceConfig string

// A PNG of the largest picture that a server could be set to make; gRPC's own limit is 4 MB.
const maxMessageBytes = 256 << 20

var (
	server    = flag.String("server", "127.0.0.1:50051", "host:port")
	tlsCA     = flag.String("tls_ca", "", "file with roots of the server's certificate; turns TLS on")
	tokenFile = flag.String("token_file", "", "file with a bearer token")
	out       = flag.String("out", "out", "folder for pictures")
	seed      = flag.Uint64("seed", 0, "of all randomness; 0: random, and reported")
	previews  = flag.Int("previews", 0, "a preview after every n-th step")
	timeout   = flag.Duration("timeout", 10*time.Minute, "for the whole request")
)

const usage = `usage: lancet_example [flags] generate PROMPT
       lancet_example [flags] edit IMAGE INSTRUCTION
       lancet_example [flags] describe IMAGE [QUESTION]
`

func dial() (*grpc.ClientConn, error) {
	security := grpc.WithInsecure() // grpc.WithTransportCredentials(insecure.NewCredentials()) since gRPC 1.34
	if *tlsCA != "" {
		pem, err := os.ReadFile(*tlsCA)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", *tlsCA)
		}
		security = grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots}))
	}
	return grpc.Dial(*server, security, grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)))
}

// A context with the deadline and the token. On a network, send a token over TLS alone.
func callContext() (context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	if *tokenFile == "" {
		return ctx, cancel, nil
	}
	token, err := os.ReadFile(*tokenFile)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token))), cancel, nil
}

func optionalSeed() *uint64 {
	if *seed == 0 {
		return nil
	}
	return seed
}

func previewOptions() *lancetv1.PreviewOptions {
	if *previews == 0 {
		return nil
	}
	return &lancetv1.PreviewOptions{EveryNSteps: int32(*previews)}
}

var extensions = map[lancetv1.ImageFormat]string{
	lancetv1.ImageFormat_IMAGE_FORMAT_PNG:  "png",
	lancetv1.ImageFormat_IMAGE_FORMAT_JPEG: "jpg",
	lancetv1.ImageFormat_IMAGE_FORMAT_WEBP: "webp",
}

func save(image *lancetv1.Image, name string) (string, error) {
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(*out, name+"."+extensions[image.GetFormat()])
	return path, os.WriteFile(path, image.GetData(), 0o644)
}

// What the events of both calls that draw have in common; those that did not come are nil.
type drawingEvent interface {
	GetQueued() *lancetv1.QueuedEvent
	GetStarted() *lancetv1.StartedEvent
	GetProgress() *lancetv1.ProgressEvent
	GetPreview() *lancetv1.PreviewEvent
	GetResult() *lancetv1.ImageResult
}

// Prints what happens to a request as it happens, saves previews and the result. `receive` gives the next event.
func followDrawing(receive func() (drawingEvent, error)) error {
	for {
		event, err := receive()
		if errors.Is(err, io.EOF) {
			return errors.New("the server ended the stream without a result")
		}
		if err != nil {
			return err
		}
		if queued := event.GetQueued(); queued != nil {
			fmt.Printf("queued, %d ahead\n", queued.GetPosition())
		} else if started := event.GetStarted(); started != nil {
			fmt.Printf("started with seed %d\n", started.GetSeed())
		} else if progress := event.GetProgress(); progress != nil {
			fmt.Printf("step %d of %d\n", progress.GetStep(), progress.GetTotalSteps())
		} else if preview := event.GetPreview(); preview != nil {
			path, err := save(preview.GetImage(), fmt.Sprintf("preview_%02d", preview.GetStep()))
			if err != nil {
				return err
			}
			fmt.Printf("preview: %s\n", path)
		} else if result := event.GetResult(); result != nil {
			path, err := save(result.GetImage(), "result")
			if err != nil {
				return err
			}
			fmt.Printf("result: %s (%d x %d, seed %d)\n", path, result.GetImage().GetWidth(), result.GetImage().GetHeight(),
				result.GetSeed())
			return nil
		}
	}
}

func generate(ctx context.Context, connection *grpc.ClientConn, prompt string) error {
	stream, err := lancetv1.NewImageServiceClient(connection).GenerateImage(ctx, &lancetv1.GenerateImageRequest{
		Prompt: prompt, Seed: optionalSeed(), Preview: previewOptions()})
	if err != nil {
		return err
	}
	return followDrawing(func() (drawingEvent, error) { return stream.Recv() })
}

func edit(ctx context.Context, connection *grpc.ClientConn, image []byte, instruction string) error {
	stream, err := lancetv1.NewImageServiceClient(connection).EditImage(ctx, &lancetv1.EditImageRequest{
		Images: [][]byte{image}, Instruction: instruction, Seed: optionalSeed(), Preview: previewOptions()})
	if err != nil {
		return err
	}
	return followDrawing(func() (drawingEvent, error) { return stream.Recv() })
}

func describe(ctx context.Context, connection *grpc.ClientConn, image []byte, question *string) error {
	stream, err := lancetv1.NewTextServiceClient(connection).DescribeImage(ctx, &lancetv1.DescribeImageRequest{
		Images: [][]byte{image}, Question: question, Seed: optionalSeed()})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the server ended the stream without a result")
		}
		if err != nil {
			return err
		}
		if delta := event.GetDelta(); delta != nil {
			fmt.Print(delta.GetText())
		} else if result := event.GetResult(); result != nil {
			fmt.Printf("\nresult: %d tokens, seed %d\n", result.GetUsage().GetAnswerTokens(), result.GetSeed())
			return nil
		}
	}
}

func run(arguments []string) error {
	connection, err := dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	// Cancelling the context, which happens at the latest when the function ends, ends the request.
	ctx, cancel, err := callContext()
	if err != nil {
		return err
	}
	defer cancel()
	if arguments[0] == "generate" {
		return generate(ctx, connection, arguments[1])
	}
	image, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	if arguments[0] == "edit" {
		return edit(ctx, connection, image, arguments[2])
	}
	if len(arguments) == 2 {
		return describe(ctx, connection, image, nil)
	}
	return describe(ctx, connection, image, &arguments[2])
}

func wellFormed(arguments []string) bool {
	if len(arguments) == 0 {
		return false
	}
	switch arguments[0] {
	case "generate":
		return len(arguments) == 2
	case "edit":
		return len(arguments) == 3
	case "describe":
		return len(arguments) == 2 || len(arguments) == 3
	}
	return false
}

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if !wellFormed(flag.Args()) {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Args()); err != nil {
		// Of an error of the server: its code and its message.
		if failure, ok := status.FromError(err); ok {
			fmt.Fprintf(os.Stderr, "%s: %s\n", failure.Code(), failure.Message())
		} else {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}
