//! A transcription with speaker turns: by one call where engines give both, else by two calls on one upload.

use super::Upstreams;
use super::outgoing::Outgoing;
use super::send::Served;
use crate::error::Error;
use crate::job::work::{Speakers, Transcribe, Transcript, Turns, Work};

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
