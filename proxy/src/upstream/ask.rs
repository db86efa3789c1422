//! Jobs with their answers: transcripts, speaker turns, speech as it is made.

use bytes::{Bytes, BytesMut};

use super::exchange::Stop;
use super::failure::Failure;
use super::outgoing::Outgoing;
use super::reply::Reply;
use super::send::Served;
use super::{Route, Upstreams};
use crate::error::Error;
use crate::grpc;
use crate::job::work::{Need, Offers, Speakers, Transcript, Turns, Work};
use crate::protocol::{self, Protocol, Samples};

/// Longer replies are parsed away from the threads that move bytes.
const INLINE_BYTES: usize = 128 * 1024;

/// Speech that an engine makes: samples as they come. Dropping it frees the engine.
pub struct Speech {
    reply: Reply,
    samples: Box<dyn Samples>,
    first: Option<Bytes>,
    /// Samples per second.
    pub sample_rate: u32,
}

impl Speech {
    /// The next s16le bytes, never empty, possibly cut between the bytes of a sample; `None` at the end.
    ///
    /// # Errors
    /// [`Stop`] when the reply breaks off, ends with an error or is not speech.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some(data) = self.reply.next().await? {
            let samples = self.samples.push(data).map_err(|error| malformed(&error))?;
            if !samples.is_empty() {
                return Ok(Some(samples));
            }
        }
        Ok(None)
    }
}

impl Upstreams {
    /// Has a file transcribed, a long one in pieces. The work must be [`Work::Transcribe`].
    ///
    /// # Errors
    /// As `Upstreams::run`; of a file that is split also [`Error::Undecodable`].
    pub async fn transcribe(&self, outgoing: &Outgoing) -> Result<Served<Transcript>, Error> {
        if self.splits(outgoing)
            && let Some(served) = Box::pin(self.in_pieces(outgoing)).await?
        {
            return Ok(served);
        }
        self.whole_transcript(outgoing).await
    }

    /// Has a file transcribed by one engine.
    pub(super) async fn whole_transcript(&self, outgoing: &Outgoing) -> Result<Served<Transcript>, Error> {
        self.whole(outgoing, |protocol, reply| protocol.transcript(reply)).await
    }

    /// Has the speaker turns of a file found. The work must be [`Work::Diarize`].
    ///
    /// # Errors
    /// As `Upstreams::run`.
    pub async fn diarize(&self, outgoing: &Outgoing) -> Result<Served<Turns>, Error> {
        self.whole(outgoing, |protocol, reply| protocol.turns(reply)).await
    }

    async fn whole<T: Send + 'static>(
        &self,
        outgoing: &Outgoing,
        decode: fn(Protocol, &[u8]) -> Result<T, protocol::Error>,
    ) -> Result<Served<T>, Error> {
        self.run(outgoing, |reply| async move {
            let protocol = reply.protocol;
            let body = reply.whole().await?;
            let len = body.len();
            let work = move || decode(protocol, &body).map_err(|error| malformed(&error));
            if len <= INLINE_BYTES {
                return Ok(work()?);
            }
            let done = tokio::task::spawn_blocking(work).await;
            Ok(done.unwrap_or(Err(Failure::Malformed))?)
        })
        .await
    }

    /// Has a file transcribed whose bytes still come; `told` gets what was heard so far. The work must be [`Work::Transcribe`]
    /// with [`live`](crate::job::work::Transcribe::live). An engine that takes over hears all of it again.
    ///
    /// # Errors
    /// As `Upstreams::run`.
    pub async fn listen(
        &self,
        outgoing: &Outgoing,
        told: &(impl Fn(Transcript) + Sync),
    ) -> Result<Served<Transcript>, Error> {
        self.run(outgoing, |mut reply| async move {
            let protocol = reply.protocol;
            let (mut deframer, mut settled) = (grpc::Deframer::default(), BytesMut::new());
            while let Some(data) = heard_next(&mut reply, outgoing).await? {
                for message in deframer.push(data).map_err(|_| Failure::Malformed)? {
                    let live = protocol.live(&settled, &message).map_err(|error| malformed(&error))?;
                    if live.settles {
                        settled.extend_from_slice(&message);
                    }
                    told(live.so_far);
                }
            }
            deframer.finish().map_err(|_| Failure::Malformed)?;
            Ok(protocol.transcript(&settled).map_err(|error| malformed(&error))?)
        })
        .await
    }

    /// Has a text spoken, once the first samples are there. The work must be [`Work::Synthesize`].
    ///
    /// # Errors
    /// As `Upstreams::run`.
    pub async fn speak(&self, outgoing: &Outgoing) -> Result<Served<Speech>, Error> {
        let wanted = match &outgoing.work {
            Work::Synthesize(wanted) => wanted.sample_rate,
            Work::Transcribe(_) | Work::Diarize | Work::Chat(_) => 0,
        };
        self.run(outgoing, |reply| first_samples(reply, wanted)).await
    }

    /// Whether an engine of the route translates what it hears.
    pub fn translates(&self, route: &Route) -> bool {
        self.any(route, |protocol| protocol.translates())
    }

    /// Whether an engine of the route says how sure it is of each word.
    pub fn has_confidences(&self, route: &Route) -> bool {
        self.any(route, |protocol| protocol.has_confidences())
    }

    /// Whether an engine of the route speaks like a recording.
    pub fn imitates(&self, route: &Route) -> bool {
        self.any(route, |protocol| protocol.imitates())
    }

    /// Whether an engine of the route stumbles over what no one speaks.
    pub fn stumbles(&self, route: &Route) -> bool {
        self.any(route, |protocol| protocol.stumbles())
    }

    fn any(&self, route: &Route, is: impl Fn(Protocol) -> bool) -> bool {
        let config = self.inner.config.get();
        config.protocols(route.capability, route.pool.as_deref()).into_iter().any(is)
    }

    /// What the engines of a route offer together, by configuration.
    pub fn offers(&self, route: &Route) -> Offers {
        let mut all = Offers::default();
        for protocol in self.inner.config.get().protocols(route.capability, route.pool.as_deref()) {
            let offers = protocol.offers();
            all.words |= offers.words;
            all.speakers = all.speakers.max(offers.speakers);
            all.live |= offers.live;
        }
        all
    }

    /// Whether engines of a route tell speakers apart, by configuration.
    pub fn tells_speakers(&self, route: &Route) -> bool {
        self.offers(route).speakers != Speakers::No
    }
}

/// The next bytes of a live reply. While the client still speaks, or pauses, an engine need not say anything.
async fn heard_next(reply: &mut Reply, outgoing: &Outgoing) -> Result<Option<Bytes>, Stop> {
    tokio::select! {
        biased;
        () = outgoing.arrived() => {}
        next = reply.next_ever() => return next,
    }
    reply.next().await
}

/// Whether a protocol can do the work.
pub(super) fn serves(protocol: Protocol, work: &Work) -> bool {
    if !protocol.capabilities().contains(&work.capability()) {
        return false;
    }
    let offers = protocol.offers();
    match work {
        Work::Transcribe(wanted) => {
            (wanted.words != Need::Required || offers.words)
                && (!wanted.speakers || offers.speakers == Speakers::SameCall)
                && (!wanted.live || offers.live)
                && (!wanted.translate || protocol.translates())
        }
        Work::Diarize => protocol.diarizes(),
        Work::Synthesize(wanted) => wanted.prompt.is_none() || protocol.imitates(),
        Work::Chat(_) => protocol.words().is_some(),
    }
}

/// Whether a protocol that serves the work also gives what is merely preferred.
pub(super) fn gives_preferred(protocol: Protocol, work: &Work) -> bool {
    let preferred = matches!(work, Work::Transcribe(wanted) if wanted.words == Need::Preferred);
    !preferred || protocol.offers().words
}

async fn first_samples(mut reply: Reply, wanted: u32) -> Result<Speech, Stop> {
    let protocol = reply.protocol;
    let mut samples = protocol.samples();
    while let Some(data) = reply.next().await? {
        let first = samples.push(data).map_err(|error| malformed(&error))?;
        if !first.is_empty() {
            let sample_rate = protocol.sample_rate(wanted);
            return Ok(Speech { reply, samples, first: Some(first), sample_rate });
        }
    }
    Err(Stop::Failed(Failure::Malformed))
}

pub(super) fn malformed(error: &protocol::Error) -> Failure {
    tracing::warn!(error = error as &dyn std::error::Error, "unable to read the engine's reply");
    Failure::Malformed
}
