//! Native FLAC (RFC 9639), frame by frame.

use bytes::{BufMut, Bytes, BytesMut};
use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, StreamInfo};
use flacenc::config;
use flacenc::error::{Verified, Verify};
use flacenc::source::{Fill, FrameBuf};

use super::Error;

/// Samples of a frame: 85 ms at 24 kHz.
const BLOCK: usize = 2048;
const BITS: usize = 16;
/// Length and type of STREAMINFO, marked as the last metadata block.
const STREAMINFO_HEADER: [u8; 4] = [0x80, 0, 0, 34];

pub(super) struct Encoder {
    config: Verified<config::Encoder>,
    info: StreamInfo,
    block: FrameBuf,
    /// Samples that fill no block yet.
    pending: Vec<i32>,
    /// Frames written so far.
    frames: usize,
    begun: bool,
}

impl Encoder {
    pub(super) fn new(rate: u32) -> Result<Self, Error> {
        let config =
            config::Encoder::default().into_verified().map_err(|(_, error)| Error::FlacSetup(error))?;
        // What a stream cannot know stays 0: frame sizes, number of samples, checksum.
        let mut info = StreamInfo::new(rate as usize, 1, BITS).map_err(Error::FlacSetup)?;
        info.set_block_sizes(BLOCK, BLOCK).map_err(Error::FlacSetup)?;
        info.set_frame_sizes(0, 0).map_err(Error::FlacSetup)?;
        let block = FrameBuf::with_size(1, BLOCK).map_err(Error::FlacSetup)?;
        Ok(Self { config, info, block, pending: Vec::new(), frames: 0, begun: false })
    }

    pub(super) fn encode(&mut self, pcm: &[i16]) -> Result<Bytes, Error> {
        self.pending.extend(pcm.iter().copied().map(i32::from));
        let pending = std::mem::take(&mut self.pending);
        let blocks = pending.chunks_exact(BLOCK);
        self.pending.extend_from_slice(blocks.remainder());
        let mut output = BytesMut::new();
        for block in blocks {
            self.frame(block, &mut output)?;
        }
        Ok(output.freeze())
    }

    /// The last block may be shorter than the others, though the header says that all are alike.
    pub(super) fn finish(mut self) -> Result<Bytes, Error> {
        let mut output = BytesMut::new();
        let last = std::mem::take(&mut self.pending);
        if !last.is_empty() {
            self.frame(&last, &mut output)?;
        }
        self.header(&mut output)?;
        Ok(output.freeze())
    }

    fn header(&mut self, output: &mut BytesMut) -> Result<(), Error> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        output.put_slice(b"fLaC");
        output.put_slice(&STREAMINFO_HEADER);
        write(&self.info, output)
    }

    fn frame(&mut self, samples: &[i32], output: &mut BytesMut) -> Result<(), Error> {
        self.header(output)?;
        self.block.fill_interleaved(samples).map_err(Error::FlacFill)?;
        let frame = flacenc::encode_fixed_size_frame(&self.config, &self.block, self.frames, &self.info)
            .map_err(Error::Flac)?;
        self.frames += 1;
        write(&frame, output)
    }
}

fn write(part: &impl BitRepr, output: &mut BytesMut) -> Result<(), Error> {
    let mut sink = ByteSink::new();
    part.write(&mut sink).map_err(Error::FlacWrite)?;
    output.put_slice(sink.as_slice());
    Ok(())
}
