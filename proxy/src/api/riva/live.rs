//! One StreamingRecognize call: audio in, results out, over a session as any other streaming dialect has it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};
use tracing::Instrument;

use contract::Capability;

use super::audio::{Coding, coding, raw_rate};
use super::config::{Options, route};
use super::recognition::alternative;
use super::{endpointing, status};
use crate::api::head::{Begun, Head};
use crate::api::live::Ending;
use crate::api::live::meter::{self, Meter};
use crate::api::{Context, asker};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::work::{Need, Transcribe, Transcript};
use crate::riva_proto::RequestId as Name;
use crate::riva_proto::asr::streaming_recognize_request::StreamingRequest;
use crate::riva_proto::asr::{
    StreamingRecognitionConfig, StreamingRecognitionResult, StreamingRecognizeRequest,
    StreamingRecognizeResponse,
};
use crate::stream::{Ask, Event, Format, Input, Partial, Rules, Session, Settings, samples, seconds};
use crate::transcript::repair;

/// Results that wait for the client.
const RESULTS: usize = 16;
/// Longest utterance, milliseconds.
const MAX_UTTERANCE: u64 = 30_000;
/// Rate that a session has until the header of a file says another one.
const RATE: u32 = 16_000;
/// How long a client may take no result.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for the last results when the gateway stops.
const GOODBYE: Duration = Duration::from_secs(10);

type Responses = mpsc::Sender<Result<StreamingRecognizeResponse, Status>>;

/// Begins a call. Its work ends when the client leaves; a stop waits for it.
///
/// # Errors
/// There are as many sessions as there may be.
pub(super) fn begin(
    context: Arc<Context>,
    request_id: RequestId,
    requests: Streaming<StreamingRecognizeRequest>,
) -> Result<BoxStream<'static, Result<StreamingRecognizeResponse, Status>>, Error> {
    let config = context.config.get();
    let retry_after = config.gateway.retry_after.min;
    let permit =
        context.sessions.take(config.gateway.sessions.max).ok_or(Error::TooManySessions { retry_after })?;
    let counted = context.session_metrics.begin("riva");
    let (sender, receiver) = mpsc::channel(RESULTS);
    let drain = context.drain.clone();
    drain.spawn(
        async move {
            let _held = (permit, counted);
            let call = Call { context, request_id, requests, responses: sender.clone() };
            tokio::select! {
                ended = call.run() => if let Err(status) = ended {
                    let _ = timeout(READ_TIMEOUT, sender.send(Err(status))).await;
                },
                () = sender.closed() => {}
            }
        }
        .in_current_span(),
    );
    Ok(stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
        .boxed())
}

/// A call before it is known what it asks for.
struct Call {
    context: Arc<Context>,
    request_id: RequestId,
    requests: Streaming<StreamingRecognizeRequest>,
    responses: Responses,
}

impl Call {
    async fn run(mut self) -> Result<(), Status> {
        let missing = || Status::invalid_argument("the first request must have a streaming_config");
        let (idle, drain) =
            (self.context.config.get().gateway.sessions.idle_timeout, self.context.drain.clone());
        let first = tokio::select! {
            first = timeout(idle, self.message()) => first.map_err(|_| ended(Ending::Idle))??,
            () = drain.begun() => return Err(ended(Ending::Draining)),
        };
        let first = first.ok_or_else(missing)?;
        let Some(StreamingRequest::StreamingConfig(streaming)) = first.streaming_request else {
            return Err(missing());
        };
        let wanted = Wanted::check(&streaming, &self.context, &self.request_id)?;
        let engines = Arc::new(self.context.engines.of(asker(&self.request_id)));
        let session = Session::new(wanted.settings(wanted.format), wanted.ask.clone(), engines);
        let session = session.map_err(|error| Error::param("sample_rate_hertz", error.to_string()))?;
        // What is used up takes no session.
        drop(self.request_id.charge(Unit::AudioSeconds, 0.0).await?);
        let meter = Meter::of(&self.request_id);
        let live = Live { call: self, wanted, session, name: first.id, head: Some(Head::default()), meter };
        let (seconds, ended, request_id) = live.run().await;
        let caller = request_id.caller();
        let key = caller.as_ref().map(|caller| tracing::field::display(caller.name()));
        tracing::info!(request_id = ?request_id.value, dialect = "riva", key, seconds, "session ended");
        ended
    }

    /// The next request. Nothing is lost when the future is dropped.
    async fn message(&mut self) -> Result<Option<StreamingRecognizeRequest>, Status> {
        let message = self.requests.message().await;
        message.map_err(|error| status::tidy(error, self.context.config.get().gateway.grpc.max_bytes()))
    }
}

/// What a call asks for.
struct Wanted {
    options: Options,
    ask: Ask,
    rules: Rules,
    interim: bool,
    /// Of samples without a header.
    format: Format,
    /// Whether samples without a header can be read: their format is named.
    is_named: bool,
}

impl Wanted {
    fn check(
        streaming: &StreamingRecognitionConfig,
        context: &Context,
        request_id: &RequestId,
    ) -> Result<Self, Error> {
        let config = streaming.config.as_ref();
        let config = config.ok_or_else(|| Error::param("config", "streaming_config.config is missing"))?;
        let options = Options::check(config)?;
        if config.audio_channel_count > 1 {
            let message = "audio_channel_count must be 1 in streaming";
            return Err(Error::param("audio_channel_count", message));
        }
        let (format, is_named) = match coding(config)? {
            Coding::Raw(sample) if config.sample_rate_hertz == 0 => (Format { sample, rate: RATE }, false),
            Coding::Raw(sample) => (Format { sample, rate: raw_rate(config)? }, true),
            Coding::File if config.encoding == 0 => {
                (Format { sample: crate::audio::Sample::S16, rate: RATE }, false)
            }
            Coding::File => {
                let message = "encoding must be LINEAR_PCM, MULAW or ALAW in streaming; Recognize takes FLAC and OGGOPUS";
                return Err(Error::param("encoding", message));
            }
        };
        let work = Transcribe {
            language: options.language.clone(),
            prompt: options.prompt.clone(),
            words: if options.words { Need::Preferred } else { Need::No },
            ..Transcribe::default()
        };
        let ask = Ask { route: route(context, request_id, &config.model)?, work };
        if options.speakers && !context.upstreams.tells_speakers(&ask.route) {
            return Err(Error::param("diarization_config", "no engine here tells speakers apart"));
        }
        let rules = endpointing::rules(config.endpointing_config.as_ref())?;
        Ok(Self { options, ask, rules, interim: streaming.interim_results, format, is_named })
    }

    fn settings(&self, format: Format) -> Settings {
        Settings {
            rules: Some(self.rules),
            partials: self.interim,
            speakers: self.options.speakers,
            max: samples(MAX_UTTERANCE),
            ..Settings::new(format)
        }
    }
}

/// A call under way.
struct Live {
    call: Call,
    wanted: Wanted,
    session: Session,
    /// The client's name of the request, which its results carry.
    name: Option<Name>,
    /// Until it is known whether the audio has a header.
    head: Option<Head>,
    meter: Option<Meter>,
}

/// What the loop goes on with.
enum Step {
    Event(Box<Event>),
    Received(Box<Result<Option<StreamingRecognizeRequest>, Status>>),
    Drain,
    Settle,
    Ending(Ending),
}

impl Live {
    /// Runs to the end. Returns the seconds of audio as well.
    async fn run(mut self) -> (f64, Result<(), Status>, RequestId) {
        let ended = self.results().await;
        if let Some(meter) = &self.meter {
            // Beyond the quota it counts as well: the next session is refused.
            let _ = meter.settle(self.session.seconds());
        }
        (self.session.seconds(), ended, self.call.request_id)
    }

    async fn results(&mut self) -> Result<(), Status> {
        let config = self.call.context.config.get();
        let (limits, drain) = (config.gateway.sessions, self.call.context.drain.clone());
        let began = Instant::now();
        let (mut active, mut too_long) = (began, began + limits.max_length);
        let (mut open, mut draining, mut settle_at) = (true, false, began + meter::EVERY);
        loop {
            let step = tokio::select! {
                biased;
                () = drain.begun(), if !draining => Step::Drain,
                event = self.session.next() => Step::Event(Box::new(event)),
                received = self.call.message(), if open && self.session.has_room() => Step::Received(Box::new(received)),
                () = sleep_until(settle_at), if self.meter.is_some() && !draining => Step::Settle,
                () = sleep_until(too_long) => Step::Ending(if draining { Ending::Draining } else { Ending::TooLong }),
                () = sleep_until(active + limits.idle_timeout), if open => Step::Ending(Ending::Idle),
            };
            match step {
                Step::Event(event) => match *event {
                    Event::Done if draining => return Err(ended(Ending::Draining)),
                    Event::Done => return Ok(()),
                    Event::Broken => return Err(ended(Ending::Broken)),
                    event => self.event(event).await?,
                },
                Step::Received(received) => {
                    active = Instant::now();
                    match (*received)? {
                        Some(request) => self.request(request)?,
                        None => {
                            open = false;
                            self.end()?;
                        }
                    }
                }
                Step::Drain => {
                    (draining, open) = (true, false);
                    self.session.push(Input::End);
                    // The stop itself drops what is not over in time.
                    too_long = Instant::now() + config.gateway.drain.mul_f64(0.75).min(GOODBYE);
                }
                Step::Settle => {
                    settle_at = Instant::now() + meter::EVERY;
                    let seconds = self.session.seconds();
                    if self.meter.as_ref().is_some_and(|meter| meter.settle(seconds).is_err()) {
                        return Err(ended(Ending::Quota));
                    }
                }
                Step::Ending(why) => return Err(ended(why)),
            }
        }
    }

    fn request(&mut self, request: StreamingRecognizeRequest) -> Result<(), Error> {
        match request.streaming_request {
            Some(StreamingRequest::AudioContent(audio)) => self.audio(audio)?,
            Some(StreamingRequest::StreamingConfig(_)) => {
                let message = "only the first request may have a streaming_config";
                return Err(Error::param("streaming_config", message));
            }
            None => {}
        }
        if request.runtime_config.get("force_eou").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            self.session.push(Input::Commit);
        }
        Ok(())
    }

    fn audio(&mut self, audio: Bytes) -> Result<(), Error> {
        let Some(head) = &mut self.head else {
            self.session.push(Input::Audio(audio));
            return Ok(());
        };
        let samples = match head.push(&audio).map_err(|message| Error::param("audio_content", message))? {
            Begun::More => return Ok(()),
            Begun::Raw(samples) => self.raw(samples)?,
            Begun::Wav(format, samples) => {
                self.session.push(Input::Settings(self.wanted.settings(format)));
                samples
            }
        };
        self.head = None;
        self.session.push(Input::Audio(samples));
        Ok(())
    }

    /// Samples without a header, which can be read only if the request names their format.
    fn raw(&self, samples: Bytes) -> Result<Bytes, Error> {
        if self.wanted.is_named || samples.is_empty() {
            return Ok(samples);
        }
        let message = "the audio has no WAV header: set encoding to LINEAR_PCM, MULAW or ALAW, and sample_rate_hertz from 8000 \
            to 48000";
        Err(Error::param("sample_rate_hertz", message))
    }

    /// The client has sent all.
    fn end(&mut self) -> Result<(), Error> {
        if let Some(mut head) = self.head.take() {
            let samples = self.raw(head.finish())?;
            self.session.push(Input::Audio(samples));
        }
        self.session.push(Input::End);
        Ok(())
    }

    async fn event(&mut self, event: Event) -> Result<(), Status> {
        let result = match event {
            Event::Partial(partial) => self.interim(&partial),
            Event::Final(mut last) => {
                let context = &self.call.context;
                let span = seconds(last.span.end - last.span.start);
                context.metrics.audio_seconds(Capability::Stt).inc_by(span);
                if last.transcript.text.trim().is_empty() {
                    return Ok(());
                }
                repair(&mut last.transcript.words);
                let tag = |speaker: Option<usize>| speaker.map_or(0, |speaker| speaker as i32 + 1);
                let tags: Vec<i32> = last.speakers_of_words().into_iter().map(tag).collect();
                self.result(&last.transcript, &tags, seconds(last.span.start), seconds(last.span.end), None)
            }
            Event::Failed { error, .. } => return Err(error.into()),
            Event::Started { .. }
            | Event::Committed { .. }
            | Event::Empty
            | Event::Cleared
            | Event::Speech(_)
            | Event::Spoken(_)
            | Event::Done
            | Event::Broken => return Ok(()),
        };
        let response = StreamingRecognizeResponse { results: vec![result], id: self.name.clone() };
        match timeout(READ_TIMEOUT, self.call.responses.send(Ok(response))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the client has left")),
            Err(_) => Err(Status::deadline_exceeded("the client takes no results")),
        }
    }

    /// Text that a later result replaces. Its stability is the share of it that stays.
    fn interim(&self, partial: &Partial) -> StreamingRecognitionResult {
        let text = partial.text();
        let stability = partial.committed.len() as f32 / text.len().max(1) as f32;
        let transcript = Transcript { text, ..Transcript::default() };
        let (start, end) = (seconds(partial.span.start), seconds(partial.span.end));
        self.result(&transcript, &[], start, end, Some(stability))
    }

    /// `tags` are the speakers of the words. `stability` is that of an interim result.
    fn result(
        &self,
        heard: &Transcript,
        tags: &[i32],
        start: f64,
        end: f64,
        stability: Option<f32>,
    ) -> StreamingRecognitionResult {
        StreamingRecognitionResult {
            alternatives: vec![alternative(heard, &self.wanted.options, tags, start)],
            is_final: stability.is_none(),
            stability: stability.unwrap_or(1.0),
            channel_tag: 1,
            audio_processed: end as f32,
            pipeline_states: None,
        }
    }
}

/// How a call ends that the gateway ends.
pub(super) fn ended(why: Ending) -> Status {
    match why {
        Ending::Draining => Status::unavailable(why.message()),
        Ending::Idle | Ending::TooLong => Status::deadline_exceeded(why.message()),
        Ending::Broken => Status::internal(why.message()),
        Ending::Quota => Status::resource_exhausted(why.message()),
    }
}
