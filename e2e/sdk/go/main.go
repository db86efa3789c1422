// OpenAI's SDK for Go against a live stack; see ../contract.py for the variables of the environment.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

var (
	ctx    = context.Background()
	client = openai.NewClient(
		option.WithBaseURL(os.Getenv("SPEECHSTACK_URL")+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0),
	)
	word = os.Getenv("SPEECHSTACK_WORD")
)

func transcription(change func(*openai.AudioTranscriptionNewParams)) (openai.AudioTranscriptionNewParams, func(), error) {
	clip, err := os.Open(os.Getenv("SPEECHSTACK_CLIP"))
	if err != nil {
		return openai.AudioTranscriptionNewParams{}, func() {}, err
	}
	params := openai.AudioTranscriptionNewParams{File: clip, Model: openai.AudioModelWhisper1}
	change(&params)
	return params, func() { clip.Close() }, nil
}

func has(text, what string) error {
	if !strings.Contains(strings.ToLower(text), what) {
		return fmt.Errorf("%q lacks %q", text, what)
	}
	return nil
}

func transcribesToJSON() error {
	params, done, err := transcription(func(*openai.AudioTranscriptionNewParams) {})
	defer done()
	if err != nil {
		return err
	}
	reply, err := client.Audio.Transcriptions.New(ctx, params)
	if err != nil {
		return err
	}
	return has(reply.Text, word)
}

func transcribesWithWordTimes() error {
	params, done, err := transcription(func(params *openai.AudioTranscriptionNewParams) {
		params.ResponseFormat = openai.AudioResponseFormatVerboseJSON
		params.TimestampGranularities = []string{"word", "segment"}
	})
	defer done()
	if err != nil {
		return err
	}
	reply, err := client.Audio.Transcriptions.New(ctx, params)
	if err != nil {
		return err
	}
	verbose := reply.RawJSON()
	for _, wanted := range []string{`"words":[{"word":`, `"segments":[{"id":0`, `"duration":`} {
		if err := has(verbose, wanted); err != nil {
			return err
		}
	}
	return nil
}

func streamsATranscript() error {
	params, done, err := transcription(func(params *openai.AudioTranscriptionNewParams) {
		params.Model = openai.AudioModelGPT4oTranscribe
	})
	defer done()
	if err != nil {
		return err
	}
	stream := client.Audio.Transcriptions.NewStreaming(ctx, params)
	deltas, whole := "", ""
	for stream.Next() {
		event := stream.Current()
		deltas += event.Delta
		whole += event.Text
	}
	if stream.Err() != nil {
		return stream.Err()
	}
	if deltas != whole {
		return fmt.Errorf("%q is not %q", deltas, whole)
	}
	return has(deltas, word)
}

func speaks() error {
	reply, err := client.Audio.Speech.New(ctx, openai.AudioSpeechNewParams{
		Model: openai.SpeechModelTTS1, Input: "The train was late again.",
		Voice:          openai.AudioSpeechNewParamsVoiceUnion{OfString: openai.String("alloy")},
		ResponseFormat: openai.AudioSpeechNewParamsResponseFormatFLAC,
	})
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	audio, err := io.ReadAll(reply.Body)
	if err != nil || len(audio) < 2000 {
		return fmt.Errorf("%d bytes: %w", len(audio), err)
	}
	return has(string(audio[:4]), "flac")
}

func anUnknownModelIsAnError() error {
	_, err := client.Models.Get(ctx, "no-such-model")
	var refused *openai.Error
	if !errors.As(err, &refused) || refused.StatusCode != 404 || refused.Code != "model_not_found" {
		return fmt.Errorf("no 404 but %v", err)
	}
	return nil
}

func main() {
	failed := 0
	checks := []struct {
		name  string
		check func() error
	}{
		{"transcribesToJSON", transcribesToJSON},
		{"transcribesWithWordTimes", transcribesWithWordTimes},
		{"streamsATranscript", streamsATranscript},
		{"speaks", speaks},
		{"anUnknownModelIsAnError", anUnknownModelIsAnError},
	}
	for _, each := range checks {
		if err := each.check(); err != nil {
			failed++
			fmt.Println("FAILED", each.name, err)
			continue
		}
		fmt.Println("ok    ", each.name)
	}
	fmt.Printf("openai-go: %d of %d hold\n", len(checks)-failed, len(checks))
	if failed > 0 {
		os.Exit(1)
	}
}
