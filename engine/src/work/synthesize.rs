//! Texts to samples, as jobs of the lane.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use super::admission::{Ticket, admit, fits_memory};
use super::run::Client;
use super::speech::Speech;
use super::{Refusal, Served};
use crate::backend::Error;
use crate::backend::speaking::Speaking;
use crate::core::Core;
use crate::fault::origin::Origin;
use crate::fault::variant::{BadAudio, OpenSizes};
use crate::lane::Lane;
use crate::wav;

/// Pieces of raw samples, little-endian, as they are made.
pub type Pieces = BoxStream<'static, Result<Bytes, Error>>;

/// The whole audio of a text.
#[derive(Debug)]
pub struct Sound {
    /// One channel.
    pub samples: Vec<i16>,
    /// Their rate in Hz.
    pub rate_hz: u32,
    /// F15: the form of the audio is wrong.
    malformed: bool,
    /// F43: what a WAV header has for sizes.
    sizes: Option<OpenSizes>,
}

/// The pieces of a job that may still run. Its client is dropped before the job can see that nothing takes the pieces.
struct Rest {
    _client: Client,
    pieces: mpsc::UnboundedReceiver<Result<Bytes, Error>>,
}

/// Synthesis in front of the lane.
pub struct Synthesizer {
    /// What every engine has.
    pub core: Arc<Core>,
    lane: Lane<Speaking>,
}

impl Synthesizer {
    /// Synthesis on a lane of its own.
    #[must_use]
    pub fn new(core: Arc<Core>, lane: Lane<Speaking>) -> Self {
        Self { core, lane }
    }

    /// Speaks a text.
    ///
    /// # Errors
    /// When the job is not admitted or flite fails. Under a hang it never returns.
    pub async fn whole(&self, speech: Speech, origin: &Origin) -> Result<Served<Sound>, Refusal> {
        let (speech, Ticket { place, plan, start, client: _client }) = self.admit(speech, origin).await?;
        let rate_hz = speech.rate_hz;
        let job = move |voices: &mut Speaking| -> Result<Vec<i16>, Error> {
            let mut samples = Vec::new();
            let mut run = start.begin();
            speech
                .render(voices, &mut run.clock, &|| false, &mut |piece| samples.extend_from_slice(piece))?;
            Ok(samples)
        };
        let samples = self.lane.run(place, job).await??;
        let malformed = plan.audio == Some(BadAudio::BadHeader);
        let made = Sound { samples, rate_hz, malformed, sizes: plan.sizes };
        Ok(Served { made, reset_after: plan.reset_after, silent_after: plan.silent_after })
    }

    /// Speaks a text, with its first piece made on return; the rest ends when the pieces are dropped.
    ///
    /// # Errors
    /// As [`Synthesizer::whole`]; a later failure is an item of the pieces.
    pub async fn online(&self, speech: Speech, origin: &Origin) -> Result<Served<Pieces>, Refusal> {
        let (speech, Ticket { place, plan, start, client }) = self.admit(speech, origin).await?;
        let odd_byte = plan.audio == Some(BadAudio::BadHeader);
        // Never more than the audio of one text: the lane does not wait for a slow reader.
        let (sender, mut pieces) = mpsc::unbounded_channel::<Result<Bytes, Error>>();
        self.lane.submit(move |voices| {
            if sender.is_closed() {
                return;
            }
            let mut run = start.begin();
            if odd_byte {
                let _gone = sender.send(Ok(Bytes::from_static(&[0])));
            }
            let made = speech.render(voices, &mut run.clock, &|| sender.is_closed(), &mut |piece| {
                let _gone = sender.send(Ok(wav::raw(piece)));
            });
            drop((run, place));
            if let Err(error) = made {
                let _gone = sender.send(Err(error));
            }
        });
        let first = pieces.recv().await.unwrap_or_else(|| Ok(Bytes::new()))?;
        let rest = Rest { _client: client, pieces };
        let rest = futures::stream::unfold(rest, async |mut rest| Some((rest.pieces.recv().await?, rest)));
        let made = futures::stream::once(std::future::ready(Ok(first))).chain(rest).boxed();
        Ok(Served { made, reset_after: plan.reset_after, silent_after: plan.silent_after })
    }

    async fn admit(&self, mut speech: Speech, origin: &Origin) -> Result<(Speech, Ticket), Refusal> {
        let ticket = admit(&self.core, speech.text.as_bytes(), origin).boxed().await?;
        fits_memory(&self.core, ticket.plan.oom_above_s, speech.expected_s())?;
        speech.spoilt = ticket.plan.audio;
        Ok((speech, ticket))
    }
}

impl Sound {
    /// A WAV file.
    #[must_use]
    pub fn wav(&self) -> Bytes {
        let file = wav::encode(&self.samples, self.rate_hz);
        match self.sizes {
            Some(OpenSizes::Max) => sized(&file, u32::MAX),
            Some(OpenSizes::Zero) => sized(&file, 0),
            None if self.malformed => lying_header(&file),
            None => file,
        }
    }

    /// Raw samples, little-endian.
    #[must_use]
    pub fn raw(&self) -> Bytes {
        let samples = wav::raw(&self.samples);
        if !self.malformed {
            return samples;
        }
        let mut odd = BytesMut::from(&[0][..]);
        odd.extend_from_slice(&samples);
        odd.freeze()
    }
}

/// F43: a header with this for the sizes of the file and of its samples.
fn sized(file: &Bytes, size: u32) -> Bytes {
    let mut open = BytesMut::from(file.as_ref());
    open[4..8].copy_from_slice(&size.to_le_bytes());
    open[wav::HEADER_BYTES - 4..wav::HEADER_BYTES].copy_from_slice(&size.to_le_bytes());
    open.freeze()
}

/// F15: a header that claims twice the samples.
fn lying_header(file: &Bytes) -> Bytes {
    let mut lying = BytesMut::from(file.as_ref());
    let claimed = u32::try_from((file.len() - wav::HEADER_BYTES) * 2).unwrap_or(u32::MAX);
    lying[wav::HEADER_BYTES - 4..wav::HEADER_BYTES].copy_from_slice(&claimed.to_le_bytes());
    lying.freeze()
}
