//! Riva's recognition service: whole recordings here, streams in [`super::live`].

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use contract::Capability;

use super::config::{Options, is_shown, milliseconds, route};
use super::{audio, live, models, request_id};
use crate::api::form::Whole;
use crate::api::{Context, may_wait, outgoing, rendered};
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::work::{Need, Speakers, Transcribe, Transcript, Turns, Work};
use crate::riva_proto::asr::riva_speech_recognition_server::RivaSpeechRecognition;
use crate::riva_proto::asr::{
    RecognizeRequest, RecognizeResponse, RivaSpeechRecognitionConfigRequest,
    RivaSpeechRecognitionConfigResponse, SpeechRecognitionAlternative, SpeechRecognitionResult,
    StreamingRecognizeRequest, StreamingRecognizeResponse, WordInfo,
};
use crate::transcript::{Params, Rule, merge, repair};
use crate::upstream::{Outgoing, Served};

/// The service.
pub(super) struct Recognition {
    pub(super) context: Arc<Context>,
}

#[tonic::async_trait]
impl RivaSpeechRecognition for Recognition {
    /// One result with all of the text; none when nothing was heard.
    async fn recognize(
        &self,
        request: Request<RecognizeRequest>,
    ) -> Result<Response<RecognizeResponse>, Status> {
        let id = request_id(request.extensions())?;
        Ok(Response::new(recognize(&self.context, &id, request.into_inner()).await?))
    }

    type StreamingRecognizeStream = BoxStream<'static, Result<StreamingRecognizeResponse, Status>>;

    async fn streaming_recognize(
        &self,
        request: Request<Streaming<StreamingRecognizeRequest>>,
    ) -> Result<Response<Self::StreamingRecognizeStream>, Status> {
        let id = request_id(request.extensions())?;
        Ok(Response::new(live::begin(Arc::clone(&self.context), id, request.into_inner())?))
    }

    async fn get_riva_speech_recognition_config(
        &self,
        request: Request<RivaSpeechRecognitionConfigRequest>,
    ) -> Result<Response<RivaSpeechRecognitionConfigResponse>, Status> {
        let asked = request.into_inner().model_name;
        Ok(Response::new(models::that_recognize(&self.context.config.get(), &asked)))
    }
}

async fn recognize(
    context: &Context,
    request_id: &RequestId,
    request: RecognizeRequest,
) -> Result<RecognizeResponse, Error> {
    let RecognizeRequest { config, audio, id } = request;
    let config = config.ok_or_else(|| Error::param("config", "config is missing"))?;
    let options = Options::check(&config)?;
    let file = Whole::new(audio::file(&config, audio)?, context)?;
    let work = Work::Transcribe(Transcribe {
        language: options.language.clone(),
        prompt: options.prompt.clone(),
        words: if options.words { Need::Required } else { Need::No },
        speakers: options.speakers,
        ..Transcribe::default()
    });
    let mut job =
        outgoing(route(context, request_id, &config.model)?, work, file.playing.seconds, request_id);
    check_offers(context, &job, &options)?;
    job.file = Some(file.upload);
    job.may_wait = may_wait(&context.config.get(), Capability::Stt, Some(file.len));
    let charge = request_id.charge(Unit::AudioSeconds, file.playing.seconds).await?;
    let Served { value: (transcript, turns), engine, hedged } = if options.speakers {
        let Served { value, engine, hedged } = context.upstreams.transcribe_with_speakers(&job).await?;
        Served { value: (value.0, Some(value.1)), engine, hedged }
    } else {
        let Served { value, engine, hedged } = context.upstreams.transcribe(&job).await?;
        Served { value: (value, None), engine, hedged }
    };
    let seconds = transcript.duration.unwrap_or(file.playing.seconds);
    request_id.served_by(&engine, hedged);
    context.upstreams.served(file.input);
    context.metrics.audio_seconds(Capability::Stt).inc_by(seconds);
    if let Some(charge) = charge {
        charge.settle(seconds);
    }
    let weight = transcript.words.len() + turns.as_ref().map_or(0, |turns| turns.turns.len());
    let render = move || render(transcript, turns.as_ref(), &options, seconds);
    let failed = || context.upstreams.failed(Capability::Stt, "its reply could not be read");
    let results = rendered(weight, render, failed).await?;
    Ok(RecognizeResponse { results, id })
}

/// Refuses what no engine of the route gives, by the field that asks for it.
fn check_offers(context: &Context, job: &Outgoing, options: &Options) -> Result<(), Error> {
    let offers = context.upstreams.offers(&job.route);
    if options.speakers && offers.speakers == Speakers::No {
        return Err(Error::param("diarization_config", "no engine here tells speakers apart"));
    }
    if options.words && !offers.words {
        return Err(Error::param("enable_word_time_offsets", "the engine gives no word times"));
    }
    Ok(())
}

fn render(
    mut transcript: Transcript,
    turns: Option<&Turns>,
    options: &Options,
    seconds: f64,
) -> Vec<SpeechRecognitionResult> {
    if transcript.text.trim().is_empty() {
        return Vec::new();
    }
    repair(&mut transcript.words);
    let tags = turns.map(|turns| speaker_tags(&transcript, turns)).unwrap_or_default();
    let alternative = alternative(&transcript, options, &tags, 0.0);
    vec![SpeechRecognitionResult {
        alternatives: vec![alternative],
        channel_tag: 1,
        audio_processed: seconds as f32,
    }]
}

/// The number of each word's speaker, from 1 in the order in which they speak; 0 for none.
fn speaker_tags(transcript: &Transcript, turns: &Turns) -> Vec<i32> {
    let language = transcript.language.as_deref();
    let params = Params { rule: Rule::Continuity, language, confidences: false };
    let merged = merge(&transcript.words, &turns.turns, &params);
    let mut known = HashMap::new();
    let mut tag = |speaker: usize| {
        let next = known.len() as i32 + 1;
        *known.entry(speaker).or_insert(next)
    };
    merged.speakers.iter().map(|speaker| speaker.map_or(0, &mut tag)).collect()
}

/// What was heard, as a result shows it. `offset` is where the audio of the transcript begins, in seconds. Clients join results
/// without a space of their own, so a text ends with one.
pub(super) fn alternative(
    transcript: &Transcript,
    options: &Options,
    speaker_tags: &[i32],
    offset: f64,
) -> SpeechRecognitionAlternative {
    let language = options.tag(transcript.language.as_deref());
    let confidences = &transcript.confidences;
    let words = transcript.words.iter().enumerate().filter(|(_, word)| options.words && is_shown(word));
    let words = words.map(|(at, word)| WordInfo {
        start_time: milliseconds(offset + word.start),
        end_time: milliseconds(offset + word.end),
        word: word.text.trim().to_owned(),
        confidence: confidences.get(at).copied().unwrap_or_default(),
        speaker_tag: speaker_tags.get(at).copied().unwrap_or_default(),
        language_code: language.clone(),
    });
    let mean = confidences.iter().sum::<f32>() / confidences.len().max(1) as f32;
    SpeechRecognitionAlternative {
        transcript: format!("{} ", transcript.text.trim()),
        confidence: mean,
        words: words.collect(),
        language_code: Some(language).filter(|language| !language.is_empty()).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::{Turn, Word};

    fn heard() -> Transcript {
        let word = |start, end, text: &str| Word { start, end, text: text.into() };
        Transcript {
            text: " Good morning. Yes. ".into(),
            language: Some("en".into()),
            words: vec![word(0.1, 0.4, "Good"), word(0.4, 0.9, " morning."), word(2.0, 2.4, " Yes.")],
            confidences: vec![0.5, 1.0, 0.75],
            ..Transcript::default()
        }
    }

    #[test]
    fn words_have_milliseconds_speakers_from_one_and_confidence() {
        let turn = |start, end, speaker: &str| Turn { start, end, speaker: speaker.into() };
        let turns = Turns { turns: vec![turn(0.0, 1.0, "spk7"), turn(1.9, 2.5, "spk2")], ..Turns::default() };
        let options = Options { words: true, speakers: true, ..Options::default() };
        let results = render(heard(), Some(&turns), &options, 2.5);
        let [SpeechRecognitionResult { alternatives, channel_tag: 1, audio_processed: 2.5 }] = &results[..]
        else {
            panic!("{results:?}")
        };
        let alternative = &alternatives[0];
        assert_eq!((alternative.transcript.as_str(), alternative.confidence), ("Good morning. Yes. ", 0.75));
        assert_eq!(alternative.language_code, ["en"]);
        let words: Vec<_> = alternative
            .words
            .iter()
            .map(|word| {
                (word.word.as_str(), word.start_time, word.end_time, word.speaker_tag, word.confidence)
            })
            .collect();
        assert_eq!(
            words,
            [("Good", 100, 400, 1, 0.5), ("morning.", 400, 900, 1, 1.0), ("Yes.", 2000, 2400, 2, 0.75)]
        );
    }

    #[test]
    fn words_come_when_they_are_asked_for_and_nothing_heard_is_no_result() {
        let results = render(heard(), None, &Options::default(), 1.0);
        assert!(results[0].alternatives[0].words.is_empty());
        assert_eq!(render(Transcript::default(), None, &Options::default(), 1.0), []);
        // An engine that does not say how sure it is leaves it unset.
        let unsure = Transcript { confidences: Vec::new(), ..heard() };
        assert_eq!(render(unsure, None, &Options::default(), 1.0)[0].alternatives[0].confidence, 0.0);
    }
}
