//! A transcription with speaker turns: by one call where engines give both, else by two calls on one upload.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyStream;

use super::Upstreams;
use super::outgoing::{Outgoing, Upload};
use super::send::Served;
use super::spool::{self, Replay};
use crate::audio::{Container, convert, wav};
use crate::error::Error;
use crate::job::known::{Lead, Reference};
use crate::job::work::{Audio, Speakers, Transcribe, Transcript, Turns, Work};

impl Upstreams {
    /// The words and the turns of a file. The work must be [`Work::Transcribe`] with speakers.
    ///
    /// # Errors
    /// A 400 when no engine of the route tells speakers apart; else as `Upstreams::run`.
    pub async fn transcribe_with_speakers(
        &self,
        outgoing: &Outgoing,
    ) -> Result<Served<(Transcript, Turns)>, Error> {
        match self.offers(&outgoing.route).speakers {
            Speakers::SameCall => {
                let Served { value: mut transcript, engine, hedged } = self.transcribe(outgoing).await?;
                let turns = transcript.turns.take().unwrap_or_default();
                Ok(Served { value: (transcript, turns), engine, hedged })
            }
            Speakers::OwnCall => self.two_calls(outgoing).await,
            Speakers::No => Err(Error::param("model", "no engine here tells speakers apart")),
        }
    }

    /// The words of a file, and its turns with the names of known speakers. The work must be [`Work::Transcribe`] with
    /// speakers. The turns are those of a joint file with the references ahead, which is asked for after the words.
    ///
    /// # Errors
    /// As [`Upstreams::transcribe_with_speakers`].
    pub async fn transcribe_with_known(
        &self,
        outgoing: &Outgoing,
        references: &[Reference],
    ) -> Result<Served<(Transcript, Turns)>, Error> {
        let mut words = outgoing.clone();
        if let Work::Transcribe(wanted) = &outgoing.work {
            words.work = Work::Transcribe(Transcribe { speakers: false, ..wanted.clone() });
        }
        if self.offers(&outgoing.route).speakers == Speakers::No {
            return Err(Error::param("model", "no engine here tells speakers apart"));
        }
        let first = self.transcribe(&words).await?;
        let lead = Lead::new(references);
        let mut turns =
            Outgoing { work: Work::Diarize, prefer: Some(first.engine.clone()), ..outgoing.clone() };
        if let Some(file) = &outgoing.file {
            turns.file = Some(self.joint(file, &lead).await?);
            turns.audio_seconds += lead.seconds();
        }
        let Served { value, engine, hedged } = self.speaker_turns(&turns).await?;
        Ok(both(first, Served { value: lead.named(value), engine, hedged }))
    }

    /// A file with references ahead of its audio.
    async fn joint(&self, file: &Upload, lead: &Lead) -> Result<Upload, Error> {
        let audio = file.pcm.get_or_try_init(|| self.convert(file)).await?;
        let len = lead.pcm.len() as u64 + audio.len().unwrap_or(0);
        let header = Bytes::copy_from_slice(&wav::header(convert::RATE, 1, Some(len)));
        let busy = self.retry_after_busy();
        let samples = BodyStream::new(audio.reader()).map(move |frame| match frame {
            Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
            Err(spool::Error::Source(error)) => Err(error),
            Err(_) => Err(Error::NoRoom { retry_after: busy }),
        });
        let source = futures::stream::iter([Ok(header.clone()), Ok(lead.pcm.clone())]).chain(samples);
        let bytes = Replay::new(source.boxed(), Some(header.len() as u64 + len), self.budget());
        let audio =
            Audio { container: Container::Wav, filename: "audio.wav".into(), mono: true, open_header: None };
        Ok(Upload::new(audio, bytes, Arc::clone(&file.gate)))
    }

    /// The turns of a file, by a call of their own or out of a transcription. The work must be [`Work::Diarize`].
    ///
    /// # Errors
    /// As [`Upstreams::transcribe_with_speakers`].
    pub async fn speaker_turns(&self, outgoing: &Outgoing) -> Result<Served<Turns>, Error> {
        match self.offers(&outgoing.route).speakers {
            Speakers::OwnCall => self.diarize(outgoing).await,
            Speakers::SameCall => {
                let wanted = Transcribe { speakers: true, ..Transcribe::default() };
                let outgoing = Outgoing { work: Work::Transcribe(wanted), ..outgoing.clone() };
                let Served { value, engine, hedged } = self.transcribe(&outgoing).await?;
                Ok(Served { value: value.turns.unwrap_or_default(), engine, hedged })
            }
            Speakers::No => Err(Error::param("model", "no engine here tells speakers apart")),
        }
    }

    /// The second call goes to the engine of the first after it, or, once the upload is complete, beside it if another
    /// engine is free.
    async fn two_calls(&self, outgoing: &Outgoing) -> Result<Served<(Transcript, Turns)>, Error> {
        let mut words = outgoing.clone();
        if let Work::Transcribe(wanted) = &outgoing.work {
            words.work = Work::Transcribe(Transcribe { speakers: false, ..wanted.clone() });
        }
        let mut turns = Outgoing { work: Work::Diarize, ..outgoing.clone() };
        let asked = self.transcribe(&words);
        tokio::pin!(asked);
        let replied = tokio::select! {
            // The first call takes its engine before another one is looked for.
            biased;
            reply = &mut asked => Some(reply?),
            () = outgoing.arrived() => None,
        };
        let first = match replied {
            Some(reply) => reply,
            None if self.free(&outgoing.route) > 0 => {
                let beside = async { Ok(self.diarize(&turns).await.ok()) };
                match tokio::try_join!(asked, beside)? {
                    (first, Some(second)) => return Ok(both(first, second)),
                    // The other engine was not free after all.
                    (first, None) => first,
                }
            }
            None => asked.await?,
        };
        if !outgoing.is_replayable() {
            return Err(Error::NoRoom { retry_after: self.retry_after_busy() });
        }
        turns.prefer = Some(first.engine.clone());
        let second = self.diarize(&turns).await?;
        Ok(both(first, second))
    }
}

fn both(first: Served<Transcript>, second: Served<Turns>) -> Served<(Transcript, Turns)> {
    Served { value: (first.value, second.value), engine: first.engine, hedged: first.hedged }
}
