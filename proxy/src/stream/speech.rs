//! Speech of a session: a text becomes samples of one rate, piece by piece, in a task that ends with its reader.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use contract::Capability;

use crate::audio::Samples;
use crate::audio::resample::Resampler;
use crate::error::Error;
use crate::job::speech;
use crate::job::work::{Synthesize, Work};
use crate::upstream::{Asker, Long, Outgoing, Route, Served, Stop, Upstreams};

/// Chunks that wait for the client. An engine's chunks are some tenths of a second long.
const CHUNKS: usize = 256;

/// What to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Say {
    /// The text.
    pub text: String,
    /// Full name of the engine's voice.
    pub voice: String,
    /// `en-US`.
    pub language: String,
    /// Samples per second of what comes out.
    pub sample_rate: u32,
    /// Which engines.
    pub route: Route,
}

/// Speech in the making. Dropping it frees the engine.
pub struct Spoken {
    chunks: mpsc::Receiver<Result<Bytes, Error>>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Spoken {
    /// Speech that is there already, or comes from elsewhere.
    #[cfg(test)]
    pub fn ready(chunks: mpsc::Receiver<Result<Bytes, Error>>) -> Self {
        Self { chunks, _task: None }
    }

    /// The next whole s16le samples; `None` at the end.
    ///
    /// # Errors
    /// Why there are no more.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        self.chunks.recv().await
    }
}

/// Begins to speak.
pub(super) fn start(upstreams: Upstreams, asker: Asker, say: Say) -> Spoken {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let task = tokio::spawn(
        async move {
            let mut continues = false;
            for text in speech::pieces(&say.text) {
                let job = job(&say, text, &asker, continues);
                continues = true;
                if let Err(error) = piece(&upstreams, &job, say.sample_rate, &sender).await {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            }
        }
        .in_current_span(),
    );
    Spoken { chunks, _task: Some(AbortOnDropHandle::new(task)) }
}

fn job(say: &Say, text: String, asker: &Asker, continues: bool) -> Outgoing {
    let work = Synthesize {
        text,
        voice: say.voice.clone(),
        language: say.language.clone(),
        sample_rate: say.sample_rate,
        dictionary: None,
        prompt: None,
    };
    Outgoing {
        route: say.route.clone(),
        audio_seconds: work.expected_seconds(),
        work: Work::Synthesize(work),
        file: None,
        asker: asker.clone(),
        may_wait: true,
        continues,
        background: false,
        long: Long::default(),
        avoid: None,
        prefer: None,
    }
}

async fn piece(
    upstreams: &Upstreams,
    job: &Outgoing,
    rate: u32,
    sender: &mpsc::Sender<Result<Bytes, Error>>,
) -> Result<(), Error> {
    let failed = |reason| upstreams.failed(Capability::Tts, reason);
    let Served { value: mut spoken, .. } = upstreams.speak(job).await?;
    let resampler = Resampler::new(spoken.sample_rate, rate);
    let mut resampler = resampler.map_err(|_| failed("its sample rate is none"))?;
    let (mut joiner, mut made) = (Samples::default(), Vec::new());
    loop {
        let bytes = match spoken.next().await {
            Ok(bytes) => bytes,
            Err(Stop::Final(error)) => return Err(error),
            Err(Stop::Failed(failure)) => return Err(failed(failure.reason())),
        };
        let Some(bytes) = bytes else { break };
        let samples: Vec<f32> =
            joiner.push(&bytes).iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
        resampler.push(&samples, &mut made).map_err(|_| failed("its samples cannot be converted"))?;
        if !send(sender, &mut made).await {
            return Ok(());
        }
    }
    resampler.finish(&mut made).map_err(|_| failed("its samples cannot be converted"))?;
    send(sender, &mut made).await;
    Ok(())
}

/// Passes samples on; `false` when they are not wanted any more.
async fn send(sender: &mpsc::Sender<Result<Bytes, Error>>, samples: &mut Vec<f32>) -> bool {
    if samples.is_empty() {
        return true;
    }
    let mut bytes = BytesMut::with_capacity(samples.len() * 2);
    for sample in samples.drain(..) {
        bytes.put_i16_le((sample * 32_768.0).round() as i16);
    }
    sender.send(Ok(bytes.freeze())).await.is_ok()
}
